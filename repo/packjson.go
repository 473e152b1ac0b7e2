package repo

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
)

// A manifest can have ten million spans, and nearly all of it is pack records.
// They are written and, in the form in which they are written, read without
// encoding/json, which takes five times as long. The text is the same.

// appendPack writes a pack record as json.Marshal does. The texts in it are hex
// digits, which Check makes sure of, so nothing needs to be escaped.
func appendPack(b []byte, p *PackEntry) []byte {
	number := func(key string, n int64) {
		b = append(b, key...)
		b = strconv.AppendInt(b, n, 10)
	}
	b = append(b, `{"pack":"`...)
	b = append(b, p.ID...)
	number(`","size":`, p.Size)
	number(`,"head":`, p.Head)
	if p.Day != 0 {
		number(`,"day":`, int64(p.Day))
	}
	for i := range p.Frames {
		f := &p.Frames[i]
		if i == 0 {
			b = append(b, `,"frames":[`...)
		} else {
			b = append(b, ',')
		}
		number(`{"at":`, f.At)
		number(`,"len":`, int64(f.Len))
		number(`,"raw":`, int64(f.Raw))
		b = append(b, `,"sum":"`...)
		b = append(b, f.Sum...)
		b = append(b, `","to":`...)
		for j, s := range f.To {
			if j == 0 {
				b = append(b, '[')
			} else {
				b = append(b, ',')
			}
			number(`[`, int64(s.File))
			number(`,`, s.Off)
			number(`,`, int64(s.At))
			number(`,`, int64(s.Len))
			b = append(b, ']')
		}
		b = append(b, `]}`...)
	}
	return append(b, `]}`...)
}

// parsePack reads a pack record. What is not in the form of appendPack is left
// to encoding/json, which decides.
func parsePack(line []byte, p *PackEntry) error {
	// All spans in one piece: as they come they would be copied again and again.
	r := packReader{b: line, spans: make([]Span, 0, bytes.Count(line, []byte("[")))}
	*p = PackEntry{}
	r.pack(p)
	if !r.bad && len(r.b) == 0 {
		return nil
	}
	*p = PackEntry{}
	return json.Unmarshal(line, p)
}

// packReader reads the one form; after anything else it is bad.
type packReader struct {
	b     []byte
	bad   bool
	spans []Span // room for those of a pack
}

func (r *packReader) pack(p *PackEntry) {
	r.text(`{"pack":"`)
	p.ID = r.hex()
	r.text(`","size":`)
	p.Size = r.number()
	r.text(`,"head":`)
	p.Head = r.number()
	if r.has(`,"day":`) {
		p.Day = int(r.number())
	}
	r.text(`,"frames":[`)
	for !r.bad {
		var f FrameEntry
		r.frame(&f)
		p.Frames = append(p.Frames, f)
		if !r.has(`,`) {
			break
		}
	}
	r.text(`]}`)
	r.has("\n")
}

func (r *packReader) frame(f *FrameEntry) {
	r.text(`{"at":`)
	f.At = r.number()
	r.text(`,"len":`)
	f.Len = int(r.number())
	r.text(`,"raw":`)
	f.Raw = int(r.number())
	r.text(`,"sum":"`)
	f.Sum = r.hex()
	r.text(`","to":[`)
	first := len(r.spans)
	for !r.bad {
		r.text(`[`)
		s := Span{File: int(r.number())}
		r.text(`,`)
		s.Off = r.number()
		r.text(`,`)
		s.At = int(r.number())
		r.text(`,`)
		s.Len = int(r.number())
		r.text(`]`)
		r.spans = append(r.spans, s)
		if !r.has(`,`) {
			break
		}
	}
	f.To = r.spans[first:len(r.spans):len(r.spans)]
	r.text(`]}`)
}

// has takes the text if it comes next.
func (r *packReader) has(text string) bool {
	if r.bad || len(r.b) < len(text) || string(r.b[:len(text)]) != text {
		return false
	}
	r.b = r.b[len(text):]
	return true
}

func (r *packReader) text(text string) {
	if !r.has(text) {
		r.bad = true
	}
}

// number takes digits: no sign, no zero before others, at most what fits.
func (r *packReader) number() (n int64) {
	i := 0
	for ; i < len(r.b) && r.b[i] >= '0' && r.b[i] <= '9'; i++ {
		if n > (math.MaxInt64-9)/10 {
			r.bad = true
			return 0
		}
		n = n*10 + int64(r.b[i]-'0')
	}
	if i == 0 || i > 1 && r.b[0] == '0' {
		r.bad = true
		return 0
	}
	r.b = r.b[i:]
	return n
}

// hex takes digits of the alphabet that names and sums have.
func (r *packReader) hex() string {
	i := 0
	for i < len(r.b) && (r.b[i] >= '0' && r.b[i] <= '9' || r.b[i] >= 'a' && r.b[i] <= 'f') {
		i++
	}
	s := string(r.b[:i])
	r.b = r.b[i:]
	return s
}
