package drill

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// serverLog is what the restored server's own log says of its recovery.
type serverLog struct {
	consistent time.Time
	replayed   time.Time         // redo was done
	last       postgres.LSN      // of the last record that was replayed
	ended      time.Time         // when the newest transaction that was replayed ended, by commit or abort
	timeline   postgres.Timeline // that it has begun
	lastLine   string
}

var logLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[\d+\] (\w+):  (.*)$`)
})

// The messages are those of access/transam/xlog.c and xlogrecovery.c, in
// English since lc_messages is C.
var (
	redoDone    = "redo done at "
	consistent  = "consistent recovery state reached"
	lastCommit  = "last completed transaction was at log time "
	newTimeline = "selected new timeline ID: "
)

// longestLine is how much of a line is looked at, in bytes: none of the messages has
// more, and a hostile server may write one without an end.
const longestLine = 1024

// parseServerLog reads the log. All of it is the server's own word, and a later line
// takes the place of an earlier one.
func parseServerLog(text string) serverLog {
	var l serverLog
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line[:min(len(line), longestLine)], "\n")
		if strings.TrimSpace(line) != "" {
			l.lastLine = line
		}
		m := logLine().FindStringSubmatch(line)
		if m == nil || m[2] != "LOG" {
			continue
		}
		at, err := time.Parse("2006-01-02 15:04:05.000", m[1])
		if err != nil {
			continue
		}
		l.see(at, m[3])
	}
	return l
}

func (l *serverLog) see(at time.Time, message string) {
	word := func(prefix string) string {
		w, _, _ := strings.Cut(strings.TrimPrefix(message, prefix), " ")
		return w
	}
	switch {
	case strings.HasPrefix(message, consistent):
		l.consistent = at
	case strings.HasPrefix(message, redoDone):
		l.replayed = at
		l.last, _ = postgres.ParseLSN(word(redoDone))
	case strings.HasPrefix(message, lastCommit):
		l.ended, _ = probe.ParseTime(strings.TrimPrefix(message, lastCommit))
	case strings.HasPrefix(message, newTimeline):
		n, _ := strconv.ParseUint(word(newTimeline), 10, 32)
		l.timeline = postgres.Timeline(n)
	}
}
