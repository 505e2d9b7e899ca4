/*
 * Runs a command until SIGTERM ends it, and prints the largest resident size, in
 * KiB, of the command and the children that it has waited for. The figure is never
 * below the size of the process that forked the command, so that has to be small.
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
