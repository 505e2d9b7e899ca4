/*
 * The least that a C program can do:
 *
 *	client signal ADDRESS PORT	signal, and read the acknowledgement
 *	client live ADDRESS PORT KEY	one value of the metadata, from the service
 *	client cached FILE KEY		one value of the metadata, from a file
 *
 * Values are looked up in the text form, and lose their outer quotes.
 */
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char buffer[65536];

/* Reads to the end; returns 0, or -1 if there is nothing. */
static int
slurp(int descriptor)
{
	size_t got = 0;
	ssize_t n;

	while (got < sizeof(buffer) - 1 && (n = read(descriptor, buffer + got,
	    sizeof(buffer) - 1 - got)) > 0)
		got += (size_t)n;
	buffer[got] = '\0';
	close(descriptor);
	return got > 0 ? 0 : -1;
}

/* Sends one request and reads its reply; returns 0, or -1. */
static int
ask(const char *address, const char *port, const char *line, const char *body)
{
	struct sockaddr_in service;
	char request[512];
	int s, length;

	memset(&service, 0, sizeof(service));
	service.sin_family = AF_INET;
	service.sin_port = htons((unsigned short)atoi(port));
	if (inet_pton(AF_INET, address, &service.sin_addr) != 1)
		return -1;
	length = snprintf(request, sizeof(request),
	    "%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n"
	    "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
	    line, address, strlen(body), body);
	if ((s = socket(AF_INET, SOCK_STREAM, 0)) == -1 ||
	    connect(s, (struct sockaddr *)&service, sizeof(service)) == -1 ||
	    write(s, request, (size_t)length) != length)
		return -1;
	return slurp(s);
}

/* Prints the value of a key; returns 0, or 1 if there is none. */
static int
look_up(const char *key)
{
	size_t length = strlen(key);
	char *line, *value, *end;

	for (line = buffer; line != NULL; line = end) {
		if ((end = strchr(line, '\n')) != NULL)
			*end++ = '\0';
		if (strncmp(line, key, length) != 0 || line[length] != '=')
			continue;
		value = line + length + 1;
		length = strlen(value);
		if (length > 1 && value[0] == '\'' && value[length - 1] == '\'') {
			value[length - 1] = '\0';
			value++;
		}
		puts(value);
		return 0;
	}
	return 1;
}

int
main(int argc, char **argv)
{
	int file;

	if (argc == 4 && strcmp(argv[1], "signal") == 0) {
		if (ask(argv[2], argv[3], "PATCH /state",
		    "{\"state_detail\": \"booted\"}") == -1 ||
		    strstr(buffer, "\r\n\r\nSTATE_DETAIL=booted") == NULL)
			return 1;
		puts("booted signal sent!");
		return 0;
	}
	if (argc == 5 && strcmp(argv[1], "live") == 0) {
		if (ask(argv[2], argv[3], "GET /conf", "") == -1)
			return 1;
		return look_up(argv[4]);
	}
	if (argc == 4 && strcmp(argv[1], "cached") == 0) {
		if ((file = open(argv[2], O_RDONLY)) == -1 || slurp(file) == -1)
			return 1;
		return look_up(argv[3]);
	}
	return 2;
}
