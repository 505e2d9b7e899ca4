/*
 * The least that a C program can do to signal: one request, one reply.
 * client ADDRESS PORT
 */
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	static const char body[] = "{\"state_detail\": \"booted\"}";
	struct sockaddr_in service;
	char buffer[4096];
	size_t got = 0;
	ssize_t n;
	int s, length;

	if (argc != 3)
		return 2;
	memset(&service, 0, sizeof(service));
	service.sin_family = AF_INET;
	service.sin_port = htons((unsigned short)atoi(argv[2]));
	if (inet_pton(AF_INET, argv[1], &service.sin_addr) != 1)
		return 2;
	length = snprintf(buffer, sizeof(buffer),
	    "PATCH /state HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n"
	    "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
	    argv[1], sizeof(body) - 1, body);
	if ((s = socket(AF_INET, SOCK_STREAM, 0)) == -1 ||
	    connect(s, (struct sockaddr *)&service, sizeof(service)) == -1 ||
	    write(s, buffer, (size_t)length) != length)
		return 1;
	while (got < sizeof(buffer) - 1 &&
	    (n = read(s, buffer + got, sizeof(buffer) - 1 - got)) > 0)
		got += (size_t)n;
	buffer[got] = '\0';
	close(s);
	if (strstr(buffer, "\r\n\r\nSTATE_DETAIL=booted") == NULL)
		return 1;
	puts("booted signal sent!");
	return 0;
}
