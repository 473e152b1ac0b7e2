/* What the library of evil.c does for "escape": it goes to production, which runs
 * on the same host, by every road that it knows, and writes what it got to into a
 * file of its own data directory. The test compiles in -DDATA (production's data
 * directory), -DSOCKET (production's socket) and -DCANARY (a file of the host). */
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

static FILE *report;

static void reached(const char *what, const char *path)
{
	fprintf(report, "REACHED %s %s\n", what, path);
}

static void reads(const char *path)
{
	char text[64];
	int fd = open(path, O_RDONLY | O_NONBLOCK), n;
	if (fd < 0)
		return;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n > 0 && !memcmp(text, "production's own", 16)) /* not the copy's */
		reached("read", path);
}

static void writes(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0666);
	if (fd < 0)
		return;
	/* In a copy of production's tree this is no way out: the test looks at production. */
	fprintf(report, "wrote %s\n", path);
	close(fd);
}

static void connects(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || strlen(path) >= sizeof a.sun_path)
		return;
	strcpy(a.sun_path, path);
	if (!connect(fd, (struct sockaddr *) &a, sizeof a))
		reached("connect", path);
	close(fd);
}

static void from(const char *root)
{
	char path[1024];
	snprintf(path, sizeof path, "%s%s", root, CANARY);
	reads(path);
	snprintf(path, sizeof path, "%s%s/secret", root, DATA);
	reads(path);
	snprintf(path, sizeof path, "%s%s/evil-wrote", root, DATA);
	writes(path);
	snprintf(path, sizeof path, "%s%s", root, SOCKET);
	connects(path);
}

static void escape(void)
{
	char path[512];
	struct dirent *e;
	DIR *proc = opendir("/proc");
	int production = atoi(PID), fd = open("achieved.lock", O_CREAT | O_EXCL | O_WRONLY, 0600);
	if (fd < 0)
		return; /* another session has done it */
	close(fd);
	report = fopen("achieved.new", "w");
	if (!report)
		return;
	fprintf(report, "uid %d gid %d\n", (int) getuid(), (int) getgid());
	if (!kill(production, 0))
		reached("signal", PID);
	from("");
	while (proc && (e = readdir(proc))) {
		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		snprintf(path, sizeof path, "/proc/%s/root", e->d_name);
		from(path);
		snprintf(path, sizeof path, "/proc/%s/cwd/secret", e->d_name);
		reads(path);
		snprintf(path, sizeof path, "/proc/%s/cwd/evil-wrote", e->d_name);
		writes(path);
	}
	fprintf(report, "done\n");
	fclose(report);
	rename("achieved.new", "achieved");
	for (int i = 0; i < 3000 && access("was-read", F_OK); i++)
		usleep(10000); /* the test reads it before the drill removes it */
}
