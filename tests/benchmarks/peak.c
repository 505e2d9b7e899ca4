/*
 * Runs a command until a SIGTERM has ended it, and prints the largest resident
 * size, in KiB, of it and of what it has waited for. A process is said to have
 * been as large as the one that it was forked from, so that has to be a small one.
 * peak COMMAND ...
 */
#include <sys/types.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	struct rusage usage;
	pid_t pid;

	if (argc < 2)
		return 2;
	signal(SIGTERM, SIG_IGN);
	if ((pid = fork()) == 0) {
		signal(SIGTERM, SIG_DFL);
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	if (pid == -1 || wait4(pid, NULL, 0, &usage) == -1)
		return 1;
	printf("%ld\n", usage.ru_maxrss);
	return 0;
}
