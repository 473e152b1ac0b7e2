package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Pin says that a backup must stay, whatever the policy says. The pins of a
// backup are a row of objects, pins/<label>/<generation>, of which the highest
// counts: pinning again and unpinning create the next one, so nothing is ever
// changed and a host without the right to delete can do both.
type Pin struct {
	Label  string    `json:"label"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is taken off
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by"`   // who, for people
	Made   time.Time `json:"made"` // by the clock of who made it
	Off    bool      `json:"off,omitempty"`
}

// Holds says whether the pin keeps its backup at this time.
func (p Pin) Holds(now time.Time) bool {
	return !p.Off && (p.Until.IsZero() || now.Before(p.Until))
}

const (
	pinsPrefix = "pins/"
	pinGens    = 6    // digits of a generation
	maxPin     = 4096 // plain bytes
	// MaxPinReason is how many bytes a reason may have.
	MaxPinReason = 200
	pinTries     = 8 // somebody else may pin at the same moment
)

func pinKey(label string, gen int) string {
	return fmt.Sprintf("%s%s/%0*d", pinsPrefix, label, pinGens, gen)
}

// parsePin reads what pinKey makes. False for every other key.
func parsePin(key string) (label string, gen int, ok bool) {
	label, digits, ok := strings.Cut(strings.TrimPrefix(key, pinsPrefix), "/")
	if !ok || CheckLabel(label) != nil {
		return "", 0, false
	}
	gen, err := strconv.Atoi(digits)
	return label, gen, err == nil && gen > 0 && pinKey(label, gen) == key
}

// SetPin stores the pin, on top of those that the backup has, under the lease of
// expiry. After an error the ones before hold. ErrReadOnly without a signing key,
// *RetiredKeyError with one that is retired: a pin that nobody believes would hold
// for ever.
func (r *Repo) SetPin(ctx context.Context, p Pin) error {
	if err := CheckLabel(p.Label); err != nil {
		return err
	}
	if len(p.Reason) > MaxPinReason {
		return fmt.Errorf("the reason of the pin has %d bytes, at most %d are allowed", len(p.Reason), MaxPinReason)
	}
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode pin: %w", err)
	}
	if err := r.CheckSigning(ctx); err != nil {
		return err
	}
	for range pinTries {
		gens, err := r.pinGenerations(ctx, pinsPrefix+p.Label+"/")
		if err != nil {
			return err
		}
		_, err = r.CreateEnvelope(ctx, pinKey(p.Label, gens[p.Label]+1), KindPin, bytes.NewReader(text), int64(len(text)))
		if _, taken := errors.AsType[*ConflictError](err); taken {
			continue
		}
		return err
	}
	return fmt.Errorf("pin backup %s: others keep on changing its pin", p.Label)
}

// PinState is the pin of a backup that counts, or why it cannot be known.
type PinState struct {
	Pin
	Err error // *CorruptError, *UntrustedError, ErrWrongIdentity: it may hold
}

// Pins reads the pins of all backups, also of such that are gone, ascending by
// label. Those that were taken off are left out; one that cannot be read is
// there with its error.
func (r *Repo) Pins(ctx context.Context) ([]PinState, error) {
	gens, err := r.pinGenerations(ctx, pinsPrefix)
	if err != nil {
		return nil, err
	}
	var out []PinState
	for label, gen := range gens {
		p, err := r.readPin(ctx, label, gen)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // just removed with its backup
		case err != nil && !AboutObject(err) && !errors.Is(err, ErrWrongIdentity):
			return nil, err
		case err == nil && p.Off:
			continue
		}
		p.Label = label
		out = append(out, PinState{p, err})
	}
	slices.SortFunc(out, func(a, b PinState) int { return strings.Compare(a.Label, b.Label) })
	return out, nil
}

func (r *Repo) readPin(ctx context.Context, label string, gen int) (Pin, error) {
	var p Pin
	key := pinKey(label, gen)
	raw, _, err := r.ReadEnvelope(ctx, key, KindPin, maxPin)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(raw, &p); err != nil || p.Label != label {
		return p, &CorruptError{key, "not a pin of this backup", err}
	}
	p.Reason, p.By = cleanText(p.Reason), cleanText(p.By)
	return p, nil
}

// pinGenerations are the highest generations below a prefix, by label.
func (r *Repo) pinGenerations(ctx context.Context, prefix string) (map[string]int, error) {
	newest := map[string]int{}
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list pins: %w", opaque(err))
		}
		if label, gen, ok := parsePin(info.Key); ok {
			newest[label] = max(newest[label], gen)
		}
	}
	return newest, nil
}
