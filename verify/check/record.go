package check

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// What was read is recorded in the repository, signed: any host can go on from
// it, it survives a host, and nobody can forge that something was read. A host
// that cannot sign or write checks all the same, and records nothing. See
// docs/adr/009.

// partHead is the first line of a part; the keys that were read follow, one a
// line.
type partHead struct {
	Host   string    `json:"host"`
	From   time.Time `json:"from"`   // nothing in it was read before
	Frames bool      `json:"frames"` // packs and WAL were opened, not only hashed
}

// Summary is what a check found, in short.
type Summary struct {
	Host     string         `json:"host"`
	Began    time.Time      `json:"began"`
	Ended    time.Time      `json:"ended"`
	Read     bool           `json:"read"`   // objects were read
	Sample   float64        `json:"sample"` // the share of them
	Frames   bool           `json:"frames"`
	Findings int            `json:"findings"`
	Backups  []BackupResult `json:"backups"`
}

// unproven says whether a backup is neither ok nor damaged by it.
func (s *Summary) unproven() bool {
	return slices.ContainsFunc(s.Backups, func(b BackupResult) bool { return b.Unproven })
}

const (
	partKeys   = 20000           // keys of a part, at most
	partAge    = 5 * time.Minute // and how long its first one waits: a check that is killed loses no more
	maxPart    = 8 << 20         // bytes
	maxSummary = 4 << 20
	// summariesRead is how many of the newest summaries are read at once, and
	// mostSummaries at most, when none of those read every byte: a week of hourly
	// checks must not hide the one that did. What is none does not count, or names that
	// anybody can put there would hide all.
	summariesRead = 10
	mostSummaries = 200
)

// recorder notes what was read, and stores it in parts, so that a check that is
// stopped need not begin again.
type recorder struct {
	repo   *repo.Repo
	id     string
	head   partHead
	now    func() time.Time
	warn   func(string)
	mu     sync.Mutex
	parts  int
	keys   []string
	begun  time.Time // when the first of keys was read
	broken bool      // storing failed: it is not tried again
}

func newRecorder(w *work) *recorder {
	return &recorder{repo: w.repo, id: repo.CheckID(w.result.Began), now: w.options.Now, warn: w.options.Warn,
		head: partHead{Host: w.options.Host, From: w.result.Began, Frames: w.result.Identity}}
}

func (r *recorder) add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if len(r.keys) == 0 {
		r.begun = now
	}
	r.keys = append(r.keys, key)
	if len(r.keys) >= partKeys || now.Sub(r.begun) >= partAge {
		r.store(context.Background())
	}
}

// flush stores what is not stored yet, also when the check is being stopped. It
// returns where the record lies, "" when there is none.
func (r *recorder) flush(ctx context.Context) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	r.store(end)
	if r.parts <= 1 { // the first has no keys
		return ""
	}
	return repo.ChecksPrefix + r.id + "/"
}

// begin stores a part without keys: by the store's clock, nothing that is recorded
// later was read before it.
func (r *recorder) begin(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.storeKeys(ctx, nil)
}

func (r *recorder) store(ctx context.Context) {
	keys := r.keys
	r.keys = nil
	if len(keys) > 0 {
		r.storeKeys(ctx, keys)
	}
}

func (r *recorder) storeKeys(ctx context.Context, keys []string) {
	if r.broken {
		return
	}
	head, err := json.Marshal(r.head)
	if err == nil {
		text := append(head, '\n')
		for _, key := range keys {
			text = append(append(text, key...), '\n')
		}
		_, err = r.repo.CreateEnvelope(ctx, repo.CheckPartKey(r.id, r.parts+1), repo.KindCheck, bytes.NewReader(text), int64(len(text)))
	}
	if err != nil {
		r.broken = true
		r.warn(fmt.Sprintf("what was read is not recorded, so --since will read it again: %v", err))
		return
	}
	r.parts++
	r.head.From = r.now()
}

// shortName stands for a key in memory.
func shortName(key string) [16]byte {
	sum := sha256.Sum256([]byte(key))
	return [16]byte(sum[:16])
}

// readBefore are the objects that were read since the time wanted, as thoroughly
// as now, each with the moment, by the store's clock, before which it must have been
// stored to be what was read. A record that cannot be used counts for nothing.
func (w *work) readBefore(ctx context.Context) (map[[16]byte]time.Time, error) {
	seen := map[[16]byte]time.Time{}
	if w.options.Since.IsZero() {
		return seen, nil
	}
	var before storage.Info // the part before, of the same check
	for o := range w.list.List(ctx, repo.ChecksPrefix) {
		id, began, summary, ok := repo.ParseCheck(o.Key)
		// A part may have begun long after its check.
		if !ok || summary || began.Before(w.options.Since.Add(-30*24*time.Hour)) {
			continue
		}
		raw, _, err := w.repo.ReadEnvelope(ctx, o.Key, repo.KindCheck, maxPart)
		if err != nil {
			if errors.Is(err, repo.ErrNoIdentity) {
				w.unproven("records of earlier checks cannot be opened, so nothing was left out: %v", err)
				return seen, nil
			}
			if repo.AboutObject(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, repo.ErrWrongIdentity) {
				w.options.Warn(fmt.Sprintf("the record %s cannot be used, and counts for nothing: %v", o.Key, err))
				continue
			}
			return nil, err
		}
		previous := before
		if before = o; !strings.HasPrefix(previous.Key, repo.ChecksPrefix+id+"/") {
			previous = storage.Info{}
		}
		lines := bufio.NewScanner(bytes.NewReader(raw))
		var head partHead
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil {
			continue
		}
		if head.From.Before(w.options.Since) || head.From.After(w.result.Began) || w.result.Identity && !head.Frames {
			continue
		}
		limit := head.storedBefore(previous)
		for lines.Scan() {
			if k := shortName(lines.Text()); limit.After(seen[k]) {
				seen[k] = limit
			}
		}
	}
	return seen, nil
}

// skew is by how much the clock of a host may be ahead of the store's where nothing
// in the store tells.
const skew = time.Hour

// storedBefore is the moment by the store's clock at which nothing of the part had
// been read yet: when the part before it was stored, and not later than its host says,
// or who stores that part again could move it.
func (h partHead) storedBefore(previous storage.Info) time.Time {
	switch {
	case previous.Key == "": // also of a version that did not begin with an empty part
		return h.From.Add(-skew)
	case previous.ModTime.Before(h.From):
		return previous.ModTime
	}
	return h.From
}

// storedAt is the latest moment at which an object of this time can have been stored:
// S3 lists whole seconds.
func storedAt(listed time.Time) time.Time {
	if listed.Nanosecond() == 0 {
		return listed.Add(time.Second)
	}
	return listed
}

// Record stores the summary of a check. repo.ErrReadOnly where this host cannot
// sign.
func Record(ctx context.Context, r *repo.Repo, res *Result, o Options) error {
	s := Summary{Host: o.Host, Began: res.Began.UTC(), Ended: res.Ended.UTC(), Read: o.Read, Sample: cmp.Or(o.Sample, 1), Frames: res.Identity && o.Read,
		Findings: len(res.Findings), Backups: res.Backups}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode the summary: %w", err)
	}
	_, err = r.CreateEnvelope(ctx, repo.CheckSummaryKey(repo.CheckID(res.Ended)), repo.KindCheck, bytes.NewReader(text), int64(len(text)))
	return err
}

// Summaries reads the newest summaries, the newest first, back to one that read
// every byte and proved all. One that cannot be used is left out.
func Summaries(ctx context.Context, r *repo.Repo) ([]Summary, error) {
	var keys []string
	for o, err := range r.Store().List(ctx, repo.ChecksPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list the records of checks: %w", err)
		}
		if _, _, summary, ok := repo.ParseCheck(o.Key); ok && summary {
			keys = append(keys, o.Key)
		}
	}
	slices.Sort(keys)
	slices.Reverse(keys)
	var out []Summary
	for some := range slices.Chunk(keys, summariesRead) {
		read, err := readSummaries(ctx, r, some)
		if err != nil {
			return nil, err
		}
		out = append(out, read...)
		if slices.ContainsFunc(read, func(s Summary) bool { return s.Read && s.Sample == 1 && !s.unproven() }) || len(out) >= mostSummaries {
			break
		}
	}
	return out, nil
}

// readSummaries reads some at the same time, as the store may be far.
func readSummaries(ctx context.Context, r *repo.Repo, keys []string) ([]Summary, error) {
	read := make([]*Summary, len(keys))
	g, ctx := errgroup.WithContext(ctx)
	for i, key := range keys {
		g.Go(func() error {
			raw, _, err := r.ReadEnvelope(ctx, key, repo.KindCheck, maxSummary)
			s := new(Summary)
			switch {
			case err == nil && json.Unmarshal(raw, s) == nil:
				read[i] = s
			case err == nil || repo.AboutObject(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, repo.ErrWrongIdentity):
			default:
				return err
			}
			return nil
		})
	}
	err := g.Wait()
	var out []Summary
	for _, s := range read {
		if s != nil {
			out = append(out, *s)
		}
	}
	return out, err
}
