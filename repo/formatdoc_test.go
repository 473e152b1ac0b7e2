package repo

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFormatPage holds FORMAT.md to the program: its limits, the fields of
// every record, kinds, contexts and keys.
func TestFormatPage(t *testing.T) {
	raw, err := os.ReadFile("FORMAT.md")
	check(t, err)
	page := string(raw)

	limits := map[string]string{}
	for k, v := range map[string]int64{
		"header line, bytes": maxHeader, "plain bytes of an envelope": maxPlain, "host, characters": maxHost,
		"raw bytes of a frame": FrameSize, "stored bytes of a frame": maxStored, "bytes of a pack": MaxPack,
		"bytes at which a writer ends a pack": packTarget, "frames of a pack": packFrames, "`head` of a pack, bytes": maxHead,
		"sum of a frame, bytes": sumSize, "plain bytes of an age chunk": ageChunk, "sealed bytes of an age chunk": ageSealed,
		"zstd window of an envelope, bytes": maxWindow, "info record, bytes": maxInfo, "strings in an info record, names of fields included": maxInfoTexts, "other record of a manifest, bytes": maxRecord,
		"file records": maxFiles, "file record, bytes": maxFileRecord, "path of a file record, bytes": maxFilePath, "names of the file records: the last elements of their paths, and each directory that holds something once, bytes": maxNames, "directories that hold something": maxDirs, "spans of a pack record": maxSpans, "bad pages that are named": MaxBadPages, "recipients of data": MaxRecipients,
		"note of what a running backup has stored, bytes": maxPart, "lists in it": maxPartSpans, "objects in it": maxPartFiles, "strings in it": maxPartTexts,
		"generation of a pin, digits": pinGens, "pin, bytes": maxPin, "reason of a pin, bytes": MaxPinReason,
		"marker, bytes": maxMarker, "statement, bytes": maxStatement, "statements that count": maxStatements, "numbers of statements that are read without a signpost": openNumbers, "number of a statement, digits": statementDigits, "key file, bytes": maxKeyFile, "lease record, bytes": maxLease,
		"lease, seconds": int64(leaseTTL.Seconds()), "allowed difference of clocks, seconds": int64(leaseSkew.Seconds()), "generation, digits": leaseGens,
	} {
		limits[k] = fmt.Sprint(v)
	}
	got := map[string]string{}
	for _, row := range table(t, page, "## Limits") {
		got[row[0]] = row[1]
	}
	if !reflect.DeepEqual(got, limits) {
		t.Errorf("limits:\n%v\nnot\n%v", got, limits)
	}

	for after, fields := range map[string][]string{
		"| field of `M` |":   jsonFields(Marker{}),
		"Info record:":       jsonFields(Info{}),
		"Tablespace object:": jsonFields(tablespaceRecord{}),
		"Age object:":        jsonFields(AgeBytes{}),
		"## Pins":            jsonFields(Pin{}),
		"Bad page object:":   jsonFields(BadPage{}),
		"File record.":       jsonFields(fileRecord{}),
		"Pack record:":       jsonFields(PackEntry{}),
		"Frame object:":      jsonFields(FrameEntry{}),
		"End record:":        jsonFields(endRecord{}),
		"## Leases":          jsonFields(leaseRecord{}),

		"| field of `T` |":   jsonFields(Statement{}),
		"Retirement object:": jsonFields(Retirement{}),
		"A cut says":         jsonFields(WALCut{}),
	} {
		var names []string
		for _, row := range table(t, page, after) {
			names = append(names, strings.Trim(row[0], "`"))
		}
		if !slices.Equal(names, fields) {
			t.Errorf("%s the page has %v, the program %v", after, names, fields)
		}
	}

	var names []string
	for _, m := range regexp.MustCompile(`([a-z0-9]+)=`).FindAllStringSubmatch(Header{}.unsigned()+" sig=", -1) {
		names = append(names, m[1])
	}
	var rows []string
	for _, row := range table(t, page, "    keyid     =") {
		rows = append(rows, strings.Trim(row[0], "`"))
	}
	if !slices.Equal(names, rows) {
		t.Errorf("header fields %v, the page has %v", names, rows)
	}
	for _, piece := range []string{
		fmt.Sprintf(`"%s kind="`, magic), `"` + strings.TrimSpace(envelopeContext) + `" LF repository LF key LF unsigned LF`,
		"the 18 bytes\n`" + strings.TrimSpace(markerContext) + "` LF", "`" + MarkerKey + "`", "`" + signingPrefix + "<base64>`",
		"`" + factPrefix + "cluster: <name>`", "`" + factPrefix + "repository: <id>`", "`" + factPrefix + "signer: " + publicKeyPrefix + "<base64>`",
		"`" + strings.TrimSpace(statementContext) + "` LF", "`" + keysPrefix + "<serial>`", "`" + besideSuffix + "` can stand",
		"`" + ManifestKey("<label>") + "`", "`" + InfoKey("<label>") + "`", "`" + PackKey("<id>") + "`", "`" + systemsPrefix + "<system>`",
		"`" + walPrefix + "<system>/<timeline>/<name>`", "`" + leasesPrefix + "<name>/<generation>`",
		fmt.Sprintf("`%s`, `%s`, `%s`, `%s`, `%s`, `%s`, `%s`, `%s`, `%s` or `%s`", KindManifest, KindInfo, KindFingerprints, KindAdoption, KindPart, KindBlocks, KindPin, KindCheck, KindWAL, KindSystem),
		fmt.Sprintf("## Versions\n\n| format | what |\n|---|---|\n| %d | this page |", Format),
		fmt.Sprintf("`%s` or `%s`. There are no links", Regular, Dir),
		fmt.Sprintf("`%s` and anything", "#"),
	} {
		if !strings.Contains(page, piece) {
			t.Errorf("the page does not say %s", piece)
		}
	}
	if len(markerContext) != 18 {
		t.Errorf("the marker's context has %d bytes", len(markerContext))
	}
	example := "20260131T020000Z-1a2b3c"
	if CheckLabel(example) != nil || !strings.Contains(page, example) {
		t.Error("the page's example is no label")
	}
}

// table returns the rows of the first table after the words, without its head.
func table(t *testing.T, page, after string) [][]string {
	t.Helper()
	_, rest, ok := strings.Cut("\n"+page, "\n"+after)
	if !ok {
		t.Fatalf("the page has no %q", after)
	}
	var rows [][]string
	for line := range strings.SplitSeq(after+rest, "\n") {
		if !strings.HasPrefix(line, "|") {
			if len(rows) > 0 {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("no table after %q", after)
	}
	return rows[2:]
}

// jsonFields are the names of a record's fields, in order, those of embedded
// records included.
func jsonFields(v any) []string {
	var out []string
	var walk func(reflect.Type)
	walk = func(rt reflect.Type) {
		for f := range rt.Fields() {
			if f.Anonymous {
				walk(f.Type)
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			out = append(out, name)
		}
	}
	walk(reflect.TypeOf(v))
	return out
}
