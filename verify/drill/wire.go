package drill

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// The processes of a drill speak in lines of JSON. The drill asks, a line a
// question; the other answers with any number of lines of progress and one that
// is the answer or says what failed. What comes from a process that has to do
// with a restored server is hostile: lines and numbers are bounded, members that
// are not known are refused, and texts are cleaned before they go anywhere.

const (
	// mostPlan bounds an answer of the restorer, in bytes, which works before
	// anything hostile runs: plans name their WAL settings and bad pages.
	mostPlan = 16 << 20
	// mostSeen bounds an answer of the helper, whose content a restored server
	// may have chosen.
	mostSeen = 256 << 10
)

// question is a line to another process.
type question struct {
	Do   string          `json:"do"`
	With json.RawMessage `json:"with,omitempty"`
}

// reply is a line from it: one of the three is set.
type reply struct {
	Progress *Progress       `json:"progress,omitempty"`
	Answer   json.RawMessage `json:"answer,omitempty"`
	Failure  *Failure        `json:"failure,omitempty"`
}

// Failure is an error in another process of the drill.
type Failure struct {
	Text   string `json:"text"`
	Hint   string `json:"hint,omitempty"`
	Code   int    `json:"code,omitempty"`   // exit code that goes with it; 0: none was said
	Proves bool   `json:"proves,omitempty"` // that a restore would have failed
}

func (f *Failure) Error() string { return f.Text }

// errBadAnswer means that a process of the drill says what it cannot say.
var errBadAnswer = errors.New("the answer of a process of the drill cannot be used")

// decodeReply reads one line.
func decodeReply(line []byte) (reply, error) {
	var r reply
	if err := strictly(line, &r); err != nil {
		return r, err
	}
	set := 0
	for _, there := range []bool{r.Progress != nil, r.Answer != nil, r.Failure != nil} {
		if there {
			set++
		}
	}
	if set != 1 {
		return r, errBadAnswer
	}
	if p := r.Progress; p != nil && (!knownPhase(p.Phase) || p.Done < 0 || p.Total < 0) {
		return r, errBadAnswer
	}
	if f := r.Failure; f != nil {
		f.Text, f.Hint = probe.OneLine(f.Text), probe.OneLine(f.Hint)
		if f.Code < 0 || f.Code > 255 {
			return r, errBadAnswer
		}
	}
	return r, nil
}

// strictly decodes one JSON value and nothing else; the error names no content.
func strictly(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return errBadAnswer
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errBadAnswer
	}
	return nil
}

func knownPhase(name string) bool {
	switch name {
	case evidence.PhasePlan, evidence.PhaseFiles, evidence.PhaseWAL, evidence.PhaseTables,
		evidence.PhaseConsistent, evidence.PhaseReplay, evidence.PhaseAccepting, evidence.PhaseChecks:
		return true
	}
	return false
}

// readLine reads a line of at most most bytes, without its line feed.
func readLine(r *bufio.Reader, most int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > most {
			return nil, errBadAnswer
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// handler answers one kind of question.
type handler func(ctx context.Context, with json.RawMessage) (answer any, err error)

// serve answers questions until there are no more. When the asking process ends,
// however that is, the context of the question at hand ends.
func serve(ctx context.Context, in io.Reader, out io.Writer, handlers map[string]handler, explain func(error) Failure) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	questions := make(chan question)
	go func() {
		defer cancel()
		defer close(questions)
		lines := bufio.NewReader(in)
		for {
			line, err := readLine(lines, mostPlan)
			if err != nil {
				return
			}
			var q question
			if strictly(line, &q) != nil {
				return
			}
			questions <- q
		}
	}()
	w := &replies{out: out}
	for q := range questions {
		h := handlers[q.Do]
		if h == nil {
			return fmt.Errorf("%w: %.40q is asked for", errBadAnswer, q.Do)
		}
		answer, err := h(ctx, q.With)
		if err != nil {
			f := explain(err)
			err = w.send(reply{Failure: &f})
		} else {
			err = w.answer(answer)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
