/* The CNI plugin: hands its environment, its input and the workload's namespace to the agent, and prints the answer.
 *
 * All logic is in the agent. What is decided here is only what to say when the agent is away (error 11, "try again
 * later"; 50 for STATUS) and the answer to VERSION, which must never depend on the agent.
 *
 * Request:  4 bytes length (big endian), then NAME=VALUE strings ending in NUL, an empty one, then the input as it came.
 *           With the first byte travels a descriptor of the namespace CNI_NETNS (SCM_RIGHTS), if that could be opened,
 *           so that agent and runtime need not see the same files.
 * Answer:   1 byte exit status, 4 bytes length (big endian), then what to print.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/weft/cni.sock"
#define LATEST_VERSION "1.1.0"
#define TIMEOUT_MS 60000   /* longer than any ADD; shorter than runtimes are willing to wait */
#define VERSION_INPUT_MS 1000
#define RETRY_MS 5
#define MAX_MESSAGE (4 << 20)

static char message[MAX_MESSAGE];
static char answer[MAX_MESSAGE];
static size_t input_at, input_length; /* where the input is in `message` */

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t deadline_ms;

/* Wait until the descriptor is ready; 0 when the time is up. */
static int wait_for(int fd, short events)
{
	for (;;) {
		int64_t left = deadline_ms - now_ms();
		struct pollfd one = {.fd = fd, .events = events};
		if (left <= 0)
			return 0;
		int ready = poll(&one, 1, (int)left);
		if (ready > 0)
			return 1;
		if (ready == 0 || errno != EINTR)
			return 0;
	}
}

static int print(const char *text, size_t length)
{
	while (length > 0) {
		ssize_t written = write(STDOUT_FILENO, text, length);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0 && errno == EAGAIN) {
			struct pollfd one = {.fd = STDOUT_FILENO, .events = POLLOUT};
			poll(&one, 1, -1);
			continue;
		}
		if (written < 0)
			return 0;
		text += written;
		length -= (size_t)written;
	}
	return 1;
}

/* The value of the first "cniVersion" in the input, if it looks like one. */
static const char *asked_version(void)
{
	static char version[16];
	const char *end = message + input_at + input_length;
	const char *at = memmem(message + input_at, input_length, "\"cniVersion\"", 12);
	size_t length = 0;
	if (at == NULL)
		return LATEST_VERSION;
	at += 12;
	while (at < end && strchr(" \t\r\n", *at) && *at)
		at++;
	if (at == end || *at++ != ':')
		return LATEST_VERSION;
	while (at < end && strchr(" \t\r\n", *at) && *at)
		at++;
	if (at == end || *at++ != '"')
		return LATEST_VERSION;
	while (at < end && length < sizeof version - 1 && (*at == '.' || (*at >= '0' && *at <= '9')))
		version[length++] = *at++;
	if (at == end || *at != '"' || length == 0)
		return LATEST_VERSION;
	return version;
}

/* A CNI error; `details` may hold anything and is escaped. */
static int fail(int code, const char *text, const char *details)
{
	char escaped[1024], line[2048];
	size_t length = 0;
	for (; *details && length < sizeof escaped - 3; details++) {
		if ((unsigned char)*details < 0x20 || (unsigned char)*details >= 0x7f)
			escaped[length++] = '?';
		else {
			if (*details == '"' || *details == '\\')
				escaped[length++] = '\\';
			escaped[length++] = *details;
		}
	}
	escaped[length] = 0;
	int size = snprintf(line, sizeof line, "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n",
			    asked_version(), code, text, escaped);
	print(line, (size_t)size);
	return 1;
}

static int agent_away(const char *command, const char *why, int error)
{
	char details[512];
	const char *path = getenv("WEFT_CNI_SOCKET");
	snprintf(details, sizeof details, "%s %s%s%s", why, path && *path ? path : DEFAULT_SOCKET, error ? ": " : "",
		 error ? strerror(error) : "");
	if (strcmp(command, "STATUS") == 0)
		return fail(50, "weft-felix does not answer", details);
	return fail(11, "weft-felix does not answer, try again later", details);
}

/* The environment, in front of the input. */
static int put_environment(void)
{
	static const char *const names[] = {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS",         "CNI_IFNAME",
					    "CNI_ARGS",    "CNI_PATH",        "CNI_NETNS_OVERRIDE"};
	size_t at = 4;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const char *value = getenv(names[i]);
		if (value == NULL)
			continue;
		size_t name_length = strlen(names[i]), value_length = strlen(value);
		if (name_length + value_length + 3 > sizeof message - at)
			return 0;
		memcpy(message + at, names[i], name_length);
		at += name_length;
		message[at++] = '=';
		memcpy(message + at, value, value_length + 1);
		at += value_length + 1;
	}
	message[at++] = 0;
	input_at = at;
	return 1;
}

/* All of the input; 0 when it is too long or cannot be read. */
static int read_input(void)
{
	for (;;) {
		size_t room = sizeof message - input_at - input_length;
		if (room == 0)
			return 0;
		ssize_t got = read(STDIN_FILENO, message + input_at + input_length, room);
		if (got == 0)
			return 1;
		if (got < 0 && (errno == EINTR || (errno == EAGAIN && wait_for(STDIN_FILENO, POLLIN))))
			continue;
		if (got < 0)
			return errno == EBADF; /* no input at all is the agent's to judge */
		input_length += (size_t)got;
	}
}

static int connect_agent(int *error)
{
	const char *path = getenv("WEFT_CNI_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (path == NULL || *path == 0)
		path = DEFAULT_SOCKET;
	if (strlen(path) >= sizeof address.sun_path) {
		*error = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (agent < 0) {
		*error = errno;
		return -1;
	}
	/* EAGAIN: more callers are waiting than the agent's queue holds. */
	while (connect(agent, (struct sockaddr *)&address, sizeof address) < 0) {
		*error = errno;
		if ((errno != EAGAIN && errno != EINTR) || now_ms() >= deadline_ms) {
			close(agent);
			return -1;
		}
		if (errno == EAGAIN)
			poll(NULL, 0, RETRY_MS);
	}
	return agent;
}

/* Send everything, the namespace's descriptor with the first byte. */
static int send_request(int agent, size_t length, int netns)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	size_t sent = 0;
	while (sent < length) {
		struct iovec part = {.iov_base = message + sent, .iov_len = length - sent};
		struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
		if (sent == 0 && netns >= 0) {
			memset(&control, 0, sizeof control);
			header.msg_control = control.space;
			header.msg_controllen = sizeof control.space;
			struct cmsghdr *attached = CMSG_FIRSTHDR(&header);
			attached->cmsg_level = SOL_SOCKET;
			attached->cmsg_type = SCM_RIGHTS;
			attached->cmsg_len = CMSG_LEN(sizeof(int));
			memcpy(CMSG_DATA(attached), &netns, sizeof netns);
		}
		ssize_t now = sendmsg(agent, &header, MSG_NOSIGNAL);
		if (now >= 0)
			sent += (size_t)now;
		else if (errno != EINTR && !((errno == EAGAIN) && wait_for(agent, POLLOUT)))
			return 0;
	}
	return 1;
}

/* Exactly `length` bytes; 0 when the agent goes away or the time is up. */
static int receive(int agent, char *into, size_t length)
{
	while (length > 0) {
		ssize_t got = recv(agent, into, length, 0);
		if (got == 0)
			return 0;
		if (got < 0) {
			if (errno != EINTR && !(errno == EAGAIN && wait_for(agent, POLLIN)))
				return 0;
			continue;
		}
		into += got;
		length -= (size_t)got;
	}
	return 1;
}

static int say_version(void)
{
	/* The input only says which version the answer should carry: do not wait long for it. */
	char line[256];
	deadline_ms = now_ms() + VERSION_INPUT_MS;
	input_at = 0;
	while (input_length < sizeof message && wait_for(STDIN_FILENO, POLLIN)) {
		ssize_t got = read(STDIN_FILENO, message + input_length, sizeof message - input_length);
		if (got <= 0 && !(got < 0 && errno == EINTR))
			break;
		input_length += got > 0 ? (size_t)got : 0;
	}
	int size = snprintf(line, sizeof line,
			    "{\"cniVersion\":\"%s\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n",
			    asked_version());
	return print(line, (size_t)size) ? 0 : 1;
}

int main(void)
{
	const char *command = getenv("CNI_COMMAND"), *path = getenv("CNI_NETNS");
	int error = 0;
	if (command == NULL)
		command = "";
	if (strcmp(command, "VERSION") == 0)
		return say_version();
	deadline_ms = now_ms() + TIMEOUT_MS;
	if (!put_environment())
		return fail(4, "the environment is too long", "");
	if (!read_input())
		return fail(6, "the network configuration cannot be read or is longer than 4 MiB", "");
	int agent = connect_agent(&error);
	if (agent < 0)
		return agent_away(command, "cannot connect to", error);
	size_t length = input_at + input_length;
	for (int i = 0; i < 4; i++)
		message[i] = (char)((length - 4) >> (24 - 8 * i));
	int netns = path != NULL && *path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (!send_request(agent, length, netns))
		return agent_away(command, "cannot send to", errno);
	unsigned char head[5];
	if (!receive(agent, (char *)head, sizeof head))
		return agent_away(command, "no answer from", 0);
	size_t size = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
	if (size > sizeof answer || !receive(agent, answer, size))
		return agent_away(command, "no whole answer from", 0);
	return print(answer, size) ? head[0] : 1;
}
