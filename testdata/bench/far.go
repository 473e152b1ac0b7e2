package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

const (
	// roundTrip is how far a bucket is.
	roundTrip = 20 * time.Millisecond

	keepSpeed  = 0.8 // of the loopback speed, for backup and restore
	roundTrips = 4   // that a push may cost more than on loopback
)

// far measures Lifeboat with a long way to the S3 server, beside the same on
// loopback in the same rounds. The proxy copies every byte, which costs CPU of
// its own: a third column with the proxy and no delay tells the two apart.
func (b *bench) far(ctx context.Context, w io.Writer) (err error) {
	near, err := s3test.StartProxy(b.s3.Addr, s3test.ProxyOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, near.Close()) }()
	away, err := s3test.StartProxy(b.s3.Addr, s3test.ProxyOptions{Delay: roundTrip / 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, away.Close()) }()

	places := []place{
		b.bucket("loopback", b.s3.Addr),
		b.bucket("proxy", near.Addr()),
		b.bucket(fmt.Sprintf("proxy, %v round trip", roundTrip), away.Addr()),
	}
	for round := range b.opt.rounds + 1 {
		for _, p := range places {
			t := &lifeboat{b: b}
			if err := b.round(ctx, t, p, round, b.opt.pushes, b.results.at(p.name, t.name())); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	b.farTable(w, places)
	return nil
}

func (b *bench) farTable(w io.Writer, places []place) {
	var s []*sample
	for _, p := range places {
		s = append(s, b.results.at(p.name, "Lifeboat"))
	}
	fmt.Fprintf(w, "\n### Lifeboat on S3 over TLS, a long way off\n\n| |")
	for _, p := range places {
		fmt.Fprintf(w, " %s |", p.name)
	}
	fmt.Fprintf(w, " against loopback | target | |\n|---|--:|--:|--:|--:|--:|---|\n")
	row := func(name string, of func(*sample) *series, show func(float64) string) (loopback, away time.Duration) {
		fmt.Fprintf(w, "| %s |", name)
		for _, s := range s {
			fmt.Fprintf(w, " %s |", show(median(of(s).wall).Seconds()))
		}
		return median(of(s[0]).wall), median(of(s[2]).wall)
	}
	speed := func(name string, of func(*sample) *series) {
		loopback, away := row(name, of, showSeconds)
		kept := float64(loopback) / float64(away)
		fmt.Fprintf(w, " %.0f %% of the speed | ≥ %.0f %% | %s |\n", 100*kept, 100*keepSpeed,
			b.results.mark(kept >= keepSpeed, "far: %s: %.0f %% of the speed, wanted %.0f %%", name, 100*kept, 100*keepSpeed))
	}
	speed("backup, wall", func(s *sample) *series { return &s.backup })
	speed("restore, wall", func(s *sample) *series { return &s.restore })
	loopback, away := row("push, wall", func(s *sample) *series { return &s.push }, showMillis)
	more := float64(away-loopback) / float64(roundTrip)
	fmt.Fprintf(w, " %.1f round trips | ≤ %d | %s |\n", more, roundTrips,
		b.results.mark(more <= roundTrips, "far: push: %.1f round trips, wanted %d", more, roundTrips))
}

// startTarget is the most that "lifeboat version" may take.
const startTarget = 15 * time.Millisecond

// start measures how long the smallest command takes, process and all.
func (b *bench) start(ctx context.Context, w io.Writer) error {
	const runs = 50
	var walls [2]series
	commands := []string{b.opt.lifeboat, "pgbackrest"}
	for i := range runs + 1 { // the first warms up
		for j, program := range commands {
			u, err := b.measure(ctx, command{args: []string{program, "version"}})
			if err != nil {
				return err
			}
			walls[j].add(i, u)
		}
	}
	lifeboat, other := median(walls[0].wall), median(walls[1].wall)
	fmt.Fprintf(w, "\n### Start of the program\n\n| | Lifeboat | pgBackRest | target | |\n|---|--:|--:|--:|---|\n")
	fmt.Fprintf(w, "| version, wall | %s | %s | ≤ %s | %s |\n", showMillis(lifeboat.Seconds()), showMillis(other.Seconds()),
		showMillis(startTarget.Seconds()), b.results.mark(lifeboat <= startTarget, "version takes %v, wanted %v", lifeboat, startTarget))
	return nil
}
