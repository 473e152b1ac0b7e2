package repo

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

func randomPack(rnd *rand.Rand) PackEntry {
	p := PackEntry{PackRef: PackRef{ID: strings.Repeat("0a", 32), Size: rnd.Int64N(1 << 25), Head: rnd.Int64N(1000)}, Day: rnd.IntN(3) * 10000}
	for range 1 + rnd.IntN(4) {
		f := FrameEntry{FrameRef: FrameRef{At: rnd.Int64N(1 << 24), Len: rnd.IntN(1 << 20), Raw: rnd.IntN(1 << 20), Sum: strings.Repeat("f9", 16)}}
		for range 1 + rnd.IntN(4) {
			f.To = append(f.To, Span{rnd.IntN(100), rnd.Int64N(1 << 45), rnd.IntN(1 << 20), rnd.IntN(1 << 20)})
		}
		p.Frames = append(p.Frames, f)
	}
	return p
}

// The records are those of encoding/json, byte for byte, and read as it reads
// them.
func TestPackRecordsAreJSON(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		p := randomPack(rnd)
		want, err := json.Marshal(p)
		check(t, err)
		if got := appendPack(nil, &p); !bytes.Equal(got, want) {
			t.Fatalf("written as\n%s\nnot\n%s", got, want)
		}
		var read PackEntry
		check(t, parsePack(append(want, '\n'), &read))
		if !reflect.DeepEqual(read, p) {
			t.Fatalf("read as\n%+v\nnot\n%+v", read, p)
		}
	}
}

// Whatever comes, it is read as encoding/json reads it, or refused as there.
func FuzzParsePack(f *testing.F) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 5 {
		p := randomPack(rnd)
		f.Add(appendPack(nil, &p))
	}
	f.Add([]byte(`{"pack":"","size":01,"head":-1,"frames":[]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var fast, slow PackEntry
		errFast, errSlow := parsePack(line, &fast), json.Unmarshal(line, &slow)
		if (errFast == nil) != (errSlow == nil) {
			t.Fatalf("%v, and of encoding/json %v", errFast, errSlow)
		}
		if errFast == nil && !reflect.DeepEqual(fast, slow) {
			t.Fatalf("%+v\nand of encoding/json\n%+v", fast, slow)
		}
	})
}
