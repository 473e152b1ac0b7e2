package main

import (
	"regexp"
	"strings"
)

// A libpq connection string is a URI or a list of "keyword=value", where a value
// may stand in quotes (PostgreSQL manual, "Connection Strings"). The patterns are
// not compiled at package level: most runs never need them.
const (
	connValue = `'(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|`
	connPair  = `(?s)(\w+)(\s*=\s*)(` + connValue + `)`
	connWhole = `(?s)^\s*(?:\w+\s*=\s*(?:` + connValue + `)(?:\s+|$))*$`
	connQuery = `^(?:[\w.]+=[^&]*(?:&|$))*$`
	connHost  = `^(?:\[[^\]]*\]|[^:\[\]]*)(?::[0-9]*)?$`
)

// maskConn hides the passwords in a connection string. What cannot be taken
// apart is hidden whole: a password may stand anywhere in it.
func maskConn(conn string) string {
	if strings.HasPrefix(conn, "postgres://") || strings.HasPrefix(conn, "postgresql://") {
		return maskURI(conn)
	}
	if !regexp.MustCompile(connWhole).MatchString(conn) {
		return masked
	}
	pair := regexp.MustCompile(connPair)
	return pair.ReplaceAllStringFunc(conn, func(text string) string {
		p := pair.FindStringSubmatch(text)
		// A database "name" that is a URI would be one with a password.
		if isSecretWord(p[1]) || strings.Contains(p[3], "://") {
			return p[1] + p[2] + masked
		}
		return text
	})
}

func isSecretWord(keyword string) bool {
	keyword = strings.ToLower(keyword)
	return strings.Contains(keyword, "password") || strings.Contains(keyword, "secret")
}

// maskURI does it for a URI. It may name several hosts and ports, which
// net/url does not take.
func maskURI(conn string) string {
	scheme, rest, _ := strings.Cut(conn, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, rest := rest[:end], rest[end:]
	hosts := authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		hosts = authority[at+1:]
		if user, _, has := strings.Cut(authority[:at], ":"); has {
			authority = user + ":" + masked + authority[at:]
		}
	}
	path, query, _ := strings.Cut(rest, "?")
	if strings.Contains(path, "@") || !regexp.MustCompile(connQuery).MatchString(query) {
		return masked // a "/", "?" or "#" in the password that should have been %2F
	}
	host := regexp.MustCompile(connHost)
	for h := range strings.SplitSeq(hosts, ",") {
		if !host.MatchString(h) {
			return masked // "user:password" without a host, for one
		}
	}
	secret := regexp.MustCompile(`(?i)((?:password|secret)\w*=)[^&]+`)
	return scheme + "://" + authority + secret.ReplaceAllString(rest, "${1}"+masked)
}
