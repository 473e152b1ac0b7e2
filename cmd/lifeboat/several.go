package main

import (
	"context"
	"fmt"
	"io"
)

// answer is what one of several repositories told. Without a report it told
// nothing, and err says why; with one, err says why it is not whole.
type answer[R comparable] struct {
	*Config
	report R
	err    error
}

// askEach does the same with each repository, one after another, the nearest
// first. One that fails hides nothing of the others; an interrupted command ends.
func askEach[R comparable](ctx context.Context, cfg *Config, ask func(*Config) (R, error)) ([]answer[R], error) {
	var all []answer[R]
	for _, one := range cfg.each() {
		report, err := ask(one)
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		all = append(all, answer[R]{one, report, err})
	}
	return all, nil
}

// told says whether there is a report.
func (a answer[R]) told() bool {
	var none R
	return a.report != none
}

// writeEach prints every report under the name of its repository.
func writeEach[R comparable](w io.Writer, all []answer[R], write func(R, io.Writer)) {
	for i, a := range all {
		if i > 0 {
			_, _ = fmt.Fprintln(w)
		}
		_, _ = fmt.Fprintf(w, "Repository %s, %s\n", a.Name, a.Repository)
		said := "unknown"
		if a.told() {
			write(a.report, w)
			said = "stopped"
		}
		if a.err != nil {
			_, _ = fmt.Fprintf(w, "%s: %s\n", said, oneLine(a.err.Error()))
		}
	}
}

// failedAnswers is the error of what failed on some of several repositories: those
// that told nothing or not all, and those of which the report is bad.
func failedAnswers[R comparable](doing string, all []answer[R], verdict func(R) error) error {
	var failures []placeFailure
	for _, a := range all {
		err := a.err
		if err == nil {
			err = verdict(a.report)
		}
		if err != nil {
			failures = append(failures, placeFailure{a.Name, err})
		}
	}
	return failedPlaces(doing, len(all), failures)
}
