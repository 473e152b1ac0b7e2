package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

func TestListAnswers(t *testing.T) {
	page := func(truncated bool, token string, keys ...string) reply {
		var b strings.Builder
		fmt.Fprintf(&b, `<?xml version="1.0"?><ListBucketResult><IsTruncated>%v</IsTruncated>`, truncated)
		if token != "" {
			fmt.Fprintf(&b, "<NextContinuationToken>%s</NextContinuationToken>", token)
		}
		for _, key := range keys {
			fmt.Fprintf(&b, "<Contents><Key>%s</Key><Size>1</Size><LastModified>2026-01-02T03:04:05Z</LastModified></Contents>", key)
		}
		return reply{status: 200, header: map[string]string{"Content-Type": "application/xml"}, body: b.String() + "</ListBucketResult>"}
	}
	for name, c := range map[string]struct {
		answers []reply
		want    []string
		ok      bool
	}{
		"two pages":                {[]reply{page(true, "t1", "p/a", "p/b"), page(false, "", "p/c")}, []string{"a", "b", "c"}, true},
		"an empty page in between": {[]reply{page(true, "t1", "p/a"), page(true, "t2"), page(false, "", "p/c")}, []string{"a", "c"}, true},
		"no token":                 {[]reply{page(true, "", "p/a")}, []string{"a"}, false},
		"the same token again":     {[]reply{page(true, "t1", "p/a"), page(true, "t1", "p/b")}, []string{"a", "b"}, false},
		"out of order":             {[]reply{page(false, "", "p/b", "p/a")}, []string{"b"}, false},
		"twice the same":           {[]reply{page(true, "t1", "p/a"), page(false, "", "p/a")}, []string{"a"}, false},
		"names that are no keys":   {[]reply{page(false, "", "p/", "p/a", "p/b//c", "p/dir/", "p/e f", "q")}, []string{"a"}, true},
		"error on the second page": {[]reply{page(true, "t1", "p/a"), s3Error(403, "AccessDenied")}, []string{"a"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, o := script(t, c.answers...)
			o.Prefix = "p"
			var got []string
			var failed error
			for info, err := range open(t, o).List(context.Background(), "") {
				if err != nil {
					failed = err
					break
				}
				got = append(got, info.Key)
			}
			if !slices.Equal(got, c.want) || (failed == nil) != c.ok {
				t.Errorf("%q and error %v, want %q and success %v", got, failed, c.want, c.ok)
			}
		})
	}
}

// What comes back must be what was asked for, whatever sits in between.
func TestRangeAnswers(t *testing.T) {
	whole := func(status int, contentRange string) reply {
		r := reply{status: status, body: "0123456789", header: map[string]string{"ETag": `"e"`}}
		if contentRange != "" {
			r.header["Content-Range"] = contentRange
		}
		return r
	}
	for name, c := range map[string]struct {
		answer reply
		off, n int64
		want   string
		ok     bool
	}{
		"all":                        {whole(200, ""), 0, -1, "0123456789", true},
		"range ignored, from 0":      {whole(200, ""), 0, 4, "0123", true},
		"range ignored":              {whole(200, ""), 3, 4, "", false},
		"range ignored, to the end":  {whole(200, ""), 3, -1, "", false},
		"another range":              {whole(206, "bytes 0-9/100"), 3, 10, "", false},
		"the right range":            {whole(206, "bytes 3-12/100"), 3, 10, "0123456789", true},
		"a range that ends early":    {whole(206, "bytes 3-12/100"), 3, 20, "", false},
		"a range that ends at end":   {whole(206, "bytes 3-12/13"), 3, 20, "0123456789", true},
		"a nonsensical range":        {whole(206, "bytes x-y/z"), 3, 10, "", false},
		"a range of unknown total":   {whole(206, "bytes 3-12/*"), 3, 10, "", false},
		"past the end":               {s3Error(416, "InvalidRange"), 30, 10, "", true},
		"missing":                    {s3Error(404, "NoSuchKey"), 30, 10, "", false},
		"a page that is no S3 error": {reply{status: 404, body: "<html>"}, 0, 10, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			_, o := script(t, c.answer)
			got, err := read(context.Background(), open(t, o), "a", c.off, c.n)
			if string(got) != c.want || (err == nil) != c.ok {
				t.Errorf("%q and error %v, want %q and success %v", got, err, c.want, c.ok)
			}
			if missing := name == "missing"; errors.Is(err, fs.ErrNotExist) != missing {
				t.Errorf("fs.ErrNotExist is %v: %v", !missing, err)
			}
		})
	}
}
