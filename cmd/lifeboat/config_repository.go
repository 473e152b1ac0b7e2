package main

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/storage/s3"
)

// location is a repository URL taken apart.
type location struct {
	scheme string // file or s3
	path   string // file: absolute path
	bucket string // s3
	prefix string // s3: without slashes at the ends, may be empty
	params url.Values
}

// parseRepository takes a repository URL apart: file:///path or
// s3://bucket/prefix?parameter=value.
func parseRepository(raw string) (location, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return location{}, errors.New("not a valid URL")
	}
	if u.User != nil {
		return location{}, errors.New("a login does not belong into the URL: credentials come from the AWS SDK's own chain (environment, ~/.aws, instance role)")
	}
	if u.Fragment != "" {
		return location{}, errors.New("\"#\" is not allowed")
	}
	switch u.Scheme {
	case "file":
		return fileLocation(u)
	case "s3":
		return s3Location(u)
	case "":
		if path.IsAbs(raw) {
			return location{}, fmt.Errorf("%q is a path, not a URL; write file://%s", raw, raw)
		}
		return location{}, fmt.Errorf("%q is not a URL; write file:///path or s3://bucket/prefix", raw)
	}
	return location{}, fmt.Errorf("%s:// is not supported; write file:///path or s3://bucket/prefix", u.Scheme)
}

func fileLocation(u *url.URL) (location, error) {
	if u.Host != "" && u.Host != "localhost" {
		return location{}, fmt.Errorf("file://%s%s names a host; an absolute path has three slashes: file:///path", u.Host, u.Path)
	}
	if u.RawQuery != "" {
		return location{}, errors.New("a file:// repository takes no parameters")
	}
	p := path.Clean(u.Path)
	if !path.IsAbs(p) || p == "/" {
		return location{}, errors.New("a file:// repository needs an absolute path: file:///path")
	}
	return location{scheme: "file", path: p}, nil
}

func s3Location(u *url.URL) (location, error) {
	if u.Host == "" {
		return location{}, errors.New("the bucket is missing: s3://bucket/prefix")
	}
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return location{}, errors.New("the parameters after \"?\" are not valid: name=value&name=value")
	}
	l := location{scheme: "s3", bucket: u.Host, prefix: strings.Trim(u.Path, "/"), params: params}
	if slices.Contains(strings.Split(l.prefix, "/"), "..") {
		return location{}, errors.New("\"..\" is not allowed in the prefix")
	}
	var known []string
	for _, k := range keys() {
		if k.url != "" {
			known = append(known, k.url)
		}
	}
	for name, values := range params {
		if !slices.Contains(known, name) {
			if near := nearest(name, known); near != "" {
				return location{}, fmt.Errorf("unknown parameter %q, did you mean %q?", name, near)
			}
			return location{}, fmt.Errorf("unknown parameter %q; there are %s", name, strings.Join(known, ", "))
		}
		if len(values) > 1 {
			return location{}, fmt.Errorf("parameter %q is set twice", name)
		}
	}
	return l, nil
}

func checkRepository(v string) error {
	_, err := parseRepository(v)
	return err
}

// expandURLs makes settings of the parameters in repository URLs and takes
// them out of the URL. A parameter counts like its key at the place where the
// URL stands; the same key set differently at the same place is an error.
// Parameters of a URL that is not the one that counts are left out.
func expandURLs(all []setting) ([]setting, error) {
	last := -1
	for i, s := range all {
		if s.key.name == "repository" && (last < 0 || s.origin.kind >= all[last].origin.kind) {
			last = i
		}
	}
	if last < 0 {
		return all, nil
	}
	s := all[last]
	l, err := parseRepository(s.values[0])
	if err != nil {
		return nil, s.wrong(err)
	}
	out := slices.Clone(all)
	out[last].values = []string{l.url()}
	for _, k := range keys() {
		if k.url == "" || !l.params.Has(k.url) {
			continue
		}
		o := s.origin
		o.url = true
		p := setting{key: k, values: []string{l.params.Get(k.url)}, origin: o, dir: s.dir}
		for _, other := range all {
			if other.key.name == k.name && other.origin.kind == o.kind && other.values[0] != p.values[0] {
				return nil, usage("%s: %s is %q in the repository URL, and %q in %s", s.origin, k.name, p.values[0], other.values[0], other.origin).
					hinted("leave one of the two")
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// url is the location without parameters.
func (l location) url() string {
	if l.scheme == "file" {
		return (&url.URL{Scheme: "file", Path: l.path}).String()
	}
	u := url.URL{Scheme: "s3", Host: l.bucket}
	if l.prefix != "" {
		u.Path = "/" + l.prefix
	}
	return u.String()
}

// optionHint says what the option is for that cannot work.
func optionHint(e *s3.OptionsError) string {
	for _, k := range keys() {
		if k.url == e.Option || k.url == "" && k.name == "repository" && slices.Contains([]string{"bucket", "prefix"}, e.Option) {
			return fmt.Sprintf("%s: %s", k.name, k.help)
		}
	}
	return "\"lifeboat config\" prints what counts"
}
