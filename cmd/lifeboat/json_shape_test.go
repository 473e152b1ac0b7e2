package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The documents of --json are an interface: their keys and the kinds of their
// values are recorded in testdata/json-shapes.txt, and a change is seen.
func TestJSONShapes(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	documents := jsonReports()
	for _, name := range slices.Sorted(maps.Keys(documents)) {
		fmt.Fprintf(&b, "## %s\n", name)
		writeShape(&b, "", reflect.TypeOf(documents[name]), nil)
	}
	path := filepath.Join("..", "..", "testdata", "json-shapes.txt")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	have, recorded := strings.Split(b.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(have), len(recorded)) {
		if i >= len(have) || i >= len(recorded) || have[i] != recorded[i] {
			t.Fatalf("%s, line %d: the shape of a document has changed; go test ./cmd/lifeboat -run TestJSONShapes -update records it again\nhave:\n%s",
				path, i+1, strings.Join(have[min(i, len(have)):min(i+3, len(have))], "\n"))
		}
	}
}

// writeShape writes a line for each value that a document can hold: the way to
// it, "[]" for each of a list, "*" for each of a map, "?" where it can be absent.
func writeShape(b *strings.Builder, at string, typ reflect.Type, above []reflect.Type) {
	for typ.Kind() == reflect.Pointer {
		typ, at = typ.Elem(), strings.TrimSuffix(at, "?")+"?"
	}
	marshals := func(i reflect.Type) bool { return typ.Implements(i) || reflect.PointerTo(typ).Implements(i) }
	switch {
	case marshals(reflect.TypeFor[json.Marshaler]()):
		fmt.Fprintf(b, "%s own JSON of %s\n", at, typ.Name())
	case marshals(reflect.TypeFor[encoding.TextMarshaler]()):
		fmt.Fprintf(b, "%s string\n", at)
	case slices.Contains(above, typ):
		fmt.Fprintf(b, "%s as above\n", at)
	case typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Uint8:
		fmt.Fprintf(b, "%s base64\n", at)
	case typ.Kind() == reflect.Slice, typ.Kind() == reflect.Array:
		writeShape(b, at+"[]", typ.Elem(), above)
	case typ.Kind() == reflect.Map:
		writeShape(b, at+".*", typ.Elem(), above)
	case typ.Kind() == reflect.Struct:
		for f := range structFields(typ) {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			optional := ""
			if strings.Contains(options, "omit") {
				optional = "?"
			}
			switch {
			case name == "-" || !f.IsExported() && !f.Anonymous:
			case f.Anonymous && name == "":
				writeShape(b, at, f.Type, append(above, typ))
			default:
				if name == "" {
					name = f.Name
				}
				writeShape(b, at+"."+name+optional, f.Type, append(above, typ))
			}
		}
	default:
		kind := typ.Kind().String()
		if strings.Trim(kind, "uint0123456789") == "" || strings.HasPrefix(kind, "float") {
			kind = "number"
		}
		fmt.Fprintf(b, "%s %s\n", at, kind)
	}
}

func structFields(typ reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range typ.NumField() {
			if !yield(typ.Field(i)) {
				return
			}
		}
	}
}
