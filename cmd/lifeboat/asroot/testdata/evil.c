/* A library in a data directory that an attacker controls. A session of the restored
 * server loads it; in production it does nothing. Compiled by the test with
 * -DSECRET="path of a key file" and -DPID="production's process id". What it does in a
 * drill is for the path of the staging directory to say: with "links" in it symbolic
 * links take the place of what the drill reads; with "hang" in it pipes do, and there
 * are processes that ignore signals, and a session that never answers. Both try to
 * have the next drill leave everything where it is. With "escape" in it it looks for
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

static void everything(void)
{
	replace("pg_wal/00000002.history");
	replace("../socket/.s.PGSQL.5432");
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

__attribute__((constructor)) static void load(void)
{
	char dir[512];
	if (!getcwd(dir, sizeof dir) || !strstr(dir, "lifeboat-drill-"))
		return;
	if (strstr(dir, "escape")) {
		escape();
		return;
	}
	hang = strstr(dir, "hang") != NULL;
	everything();
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
