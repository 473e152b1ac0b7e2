package probe

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// Check is a user's own check of the restored data: a query or a command.
type Check struct {
	Name     string
	Required bool          // else its failure is told and no more
	Timeout  time.Duration // 0 is one minute

	// SQL is one query; the first column of its first row is the value that is
	// looked at. Without an expectation the value must be true.
	SQL       string
	Database  string // "" is postgres
	Expect    *string
	Min, Max  *float64
	NewerThan time.Duration // the value is a time, at most so long before the moment of disaster

	// Command is a program and its arguments, run without a shell. It passes
	// when it exits with 0. PGHOST, PGPORT, PGUSER and PGDATABASE lead libpq
	// to the restored server, and LIFEBOAT_DRILL_CONN is the same as one string.
	Command []string
}

const userLimit = time.Minute

// Limit is how long the check may take.
func (c Check) Limit() time.Duration {
	if c.Timeout <= 0 {
		return userLimit
	}
	return c.Timeout
}

// Run runs the check against the server behind conn.
func (c Check) Run(ctx context.Context, now func() time.Time, conn Conn, disaster time.Time) evidence.Check {
	kind := "sql"
	if len(c.Command) > 0 {
		kind = "command"
	}
	return Timed(ctx, now, evidence.Check{Name: c.Name, Kind: kind, Required: c.Required}, c.Limit(), func(ctx context.Context) (evidence.Verdict, string) {
		if len(c.Command) > 0 {
			return runCommand(ctx, c.Command, conn)
		}
		return c.query(ctx, conn, disaster)
	})
}

// Timed runs a check with a time limit. One that does not end in time failed:
// a restored server that does not answer is no server.
func Timed(ctx context.Context, now func() time.Time, c evidence.Check, limit time.Duration, run func(context.Context) (evidence.Verdict, string)) evidence.Check {
	began := now()
	cctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c.Verdict, c.Detail = run(cctx)
	c.Detail = OneLine(c.Detail)
	switch {
	case ctx.Err() != nil:
		c.Verdict, c.Detail = evidence.Unknown, OneLine(context.Cause(ctx).Error())
	case cctx.Err() != nil && c.Verdict != evidence.Passed:
		c.Verdict, c.Detail = evidence.Failed, fmt.Sprintf("it did not end within %s", limit)
	}
	c.Seconds = now().Sub(began).Seconds()
	return c
}

// query runs the SQL and compares.
func (c Check) query(ctx context.Context, conn Conn, disaster time.Time) (evidence.Verdict, string) {
	value, err := conn.Value(ctx, c.Database, c.SQL)
	if err != nil {
		return evidence.Failed, err.Error()
	}
	if value == nil {
		return evidence.Failed, "the query returned no value"
	}
	return c.compare(*value, disaster)
}

func (c Check) compare(value string, disaster time.Time) (evidence.Verdict, string) {
	shown := fmt.Sprintf("%.200q", value)
	switch {
	case c.NewerThan > 0:
		at, err := ParseTime(value)
		if err != nil {
			return evidence.Failed, shown + " is not a time"
		}
		age := disaster.Sub(at)
		detail := fmt.Sprintf("%s, %s before the disaster; at most %s are allowed", at.UTC().Format(time.RFC3339), evidence.Seconds(max(0, age.Seconds())), evidence.Seconds(c.NewerThan.Seconds()))
		return verdict(age <= c.NewerThan), detail
	case c.Expect != nil:
		return verdict(value == *c.Expect), fmt.Sprintf("%s; expected is %.200q", shown, *c.Expect)
	case c.Min != nil || c.Max != nil:
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return evidence.Failed, shown + " is not a number"
		}
		ok := (c.Min == nil || n >= *c.Min) && (c.Max == nil || n <= *c.Max)
		return verdict(ok), value + c.bounds()
	}
	return verdict(value == "t"), shown
}

func (c Check) bounds() string {
	var s string
	if c.Min != nil {
		s += "; at least " + strconv.FormatFloat(*c.Min, 'f', -1, 64)
	}
	if c.Max != nil {
		s += "; at most " + strconv.FormatFloat(*c.Max, 'f', -1, 64)
	}
	return s
}

func verdict(ok bool) evidence.Verdict {
	if ok {
		return evidence.Passed
	}
	return evidence.Failed
}

// ParseTime reads what PostgreSQL prints with datestyle ISO in UTC, with or
// without a zone, or seconds since 1970.
func ParseTime(s string) (time.Time, error) {
	for _, form := range []string{"2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05.999999-07:00", "2006-01-02 15:04:05.999999", "2006-01-02", time.RFC3339Nano} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n < 0 || n > 1e11 {
		return time.Time{}, errors.New("not a time")
	}
	return time.Unix(0, int64(n*1e9)), nil
}

// runCommand runs a program in a process group of its own, all of which is
// ended when its time is over.
func runCommand(ctx context.Context, args []string, conn Conn) (evidence.Verdict, string) {
	out, err := conn.Program(ctx, "postgres", args[0], args[1:]...)
	line := LastLine(out)
	if err == nil {
		return evidence.Passed, line
	}
	if line != "" {
		return evidence.Failed, fmt.Sprintf("%v: %s", err, line)
	}
	return evidence.Failed, err.Error()
}
