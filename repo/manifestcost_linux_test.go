package repo

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// costMost is what reading a manifest may take of a process's memory, as the kernel
// counts it, whatever somebody with the cluster's key has signed.
const costMost = 256 << 20

// costFew is as much for an eighth of the records, above what a process takes anyway.
const costFew = 64<<20 + (costMost-64<<20)/8

// costs are hostile manifests: an info, and what goes on for ever after it.
var costs = map[string]struct {
	files  int64
	record func(i int) string
	soak   bool // it takes long
}{
	"3 million directories": {3_000_000, directoryRecord, true},
	few:                     {3_000_000 / 8, directoryRecord, false},
	"as many files as there may be, in no order": {maxFiles, func(i int) string {
		return fmt.Sprintf(`{"type":"file","path":"base/5/%d","mode":384}`, uint32(i)*2654435761)
	}, true},
	"long names": {maxFiles, func(i int) string {
		return fmt.Sprintf(`{"type":"file","path":"%d/%s","mode":384}`, i, strings.Repeat("x", 4000))
	}, false},
	"a record too long": {maxFiles, func(int) string { return strings.Repeat(" ", maxFileRecord) }, false},
	"long sums": {maxFiles, func(i int) string {
		return fmt.Sprintf(`{"type":"file","path":"%d","mode":384,"sum":"%s"}`, i%100, strings.Repeat("0", maxFileRecord-100))
	}, true},
	"spans": {0, manySpans, false},
	"as many files as there may be, and spans": {maxFiles, func(i int) string {
		if i < maxFiles {
			return fmt.Sprintf(`{"type":"dir","path":"%010d","mode":448}`, i)
		}
		return manySpans(i)
	}, true},
}

const few = "an eighth of 3 million directories"

func directoryRecord(i int) string { return fmt.Sprintf(`{"type":"dir","path":"%07d","mode":448}`, i) }

// manySpans is a pack with as many as there may be.
func manySpans(int) string {
	return `{"pack":"` + strings.Repeat("0", 64) + `","size":5000,"head":400,"frames":[{"at":0,"len":10,"raw":10,"sum":"` +
		strings.Repeat("0", 32) + `","to":[` + strings.Repeat("[0,0,0,1],", maxSpans-1) + `[0,0,0,1]]}]}`
}

// endless reads as the records of one of them.
type endless struct {
	record func(int) string
	i      int
	rest   string
}

func (e *endless) Read(p []byte) (int, error) {
	if e.rest == "" {
		e.rest = e.record(e.i) + "\n"
		e.i++
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// No manifest costs more than costMost: each is read by a process of its own, whose
// high-water mark the kernel keeps.
func TestManifestCost(t *testing.T) {
	if name := os.Getenv("LIFEBOAT_TEST_COST"); name != "" {
		readCost(t, name)
		return
	}
	if raceDetector {
		t.Skip("the race detector takes a multiple of the memory: run without it")
	}
	for name, c := range costs {
		if c.soak && os.Getenv("LIFEBOAT_SOAK") == "" {
			t.Logf("%s: with LIFEBOAT_SOAK only", name)
			continue
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestManifestCost$", "-test.v")
		cmd.Env = append(os.Environ(), "LIFEBOAT_TEST_COST="+name)
		out, err := cmd.CombinedOutput()
		_, after, found := strings.Cut(string(out), "cost ")
		number, _, _ := strings.Cut(after, "\n")
		peak, bad := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || !found || bad != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
			continue
		}
		t.Logf("%s: %d MiB", name, peak>>20)
		most := int64(costMost)
		if name == few {
			most = costFew
		}
		if peak > most {
			t.Errorf("%s: %d MiB of memory, more than %d", name, peak>>20, most>>20)
		}
	}
}

// readCost reads a hostile manifest and prints the process's high-water mark.
func readCost(t *testing.T, name string) {
	w := newWorld(t)
	info := testInfo()
	info.Format, info.Repository, info.Cluster = Format, w.writer.marker.Repository, "shop"
	info.Files, info.Packs, info.Frames = costs[name].files, 1, 1
	line, err := recordLine(info)
	check(t, err)
	src := io.MultiReader(strings.NewReader(string(line)), &endless{record: costs[name].record})
	m := newManifestReader("m", io.NopCloser(src))
	err = readHead(m, w.reader, testLabel, nil)
	if err == nil {
		for _, err = range m.Packs() {
			if err != nil {
				break
			}
		}
	}
	if !refused(err) {
		t.Errorf("%s: %v", name, err)
	}
	status, err := os.ReadFile("/proc/self/status")
	check(t, err)
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.ParseInt(strings.TrimSpace(strings.SplitN(after, "kB", 2)[0]), 10, 64)
	check(t, err)
	fmt.Printf("\ncost %d\n", kib<<10)
}
