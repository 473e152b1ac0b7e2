// Package direct keeps requests that carry credentials at the server that they
// are for. A server that answers with a redirect would otherwise be sent the
// signed request, and the session's token with it, wherever it points: to
// another port, another host, or from TLS to plain text. No service of Amazon
// needs that: a bucket of another region is a matter of configuration.
package direct

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// RedirectError says that a server answered with a redirect, which was not
// followed.
type RedirectError struct {
	Status int    // of HTTP
	From   string // host and port that answered
	To     string // scheme, host and port that it points to
	Region string // of the bucket, as S3 says; "" when it does not
}

func (e *RedirectError) Error() string {
	return fmt.Sprintf("%s answers with HTTP %d and points to %s, which is not followed", e.From, e.Status, e.To)
}

// Proxy is a Transport.Proxy that gives the proxy of the environment and refuses
// every request that follows a redirect with *RedirectError. The Transport asks
// it before it connects, for each request, and copies of the Transport keep it:
// the SDK's HTTP client follows redirects by itself, offers no other place to
// stop it, and must stay of its own kind for AWS_CA_BUNDLE to count.
func Proxy(req *http.Request) (*url.URL, error) {
	if req.Response != nil { // net/http: set in redirects only
		return nil, redirect(req.Response, req.URL)
	}
	return http.ProxyFromEnvironment(req)
}

// FromResponse is the error of an answer that is a redirect which the client
// itself did not follow, or nil.
func FromResponse(resp *http.Response) *RedirectError {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil
	}
	to, err := resp.Location()
	if err != nil || to.String() == sdkLocation {
		to = &url.URL{}
	}
	return redirect(resp, to)
}

// sdkLocation is what the SDK puts where an answer has no Location.
const sdkLocation = "https://amazonaws.com/badhttpredirectlocation"

func redirect(resp *http.Response, to *url.URL) *RedirectError {
	e := &RedirectError{Status: resp.StatusCode, From: "the server", To: place(to), Region: word(resp.Header.Get("x-amz-bucket-region"))}
	if resp.Request != nil && resp.Request.URL != nil {
		e.From = word(resp.Request.URL.Host)
	}
	return e
}

// place is a URL without what may be secret in it: user, path and query.
func place(u *url.URL) string {
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "no host"
	}
	return u.Scheme + "://" + word(u.Host)
}

// word keeps of what a server says only what can stand in the name of a host or
// a region, and not much of that.
func word(text string) string {
	const most = 255
	text = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_:[]", r) {
			return r
		}
		return -1
	}, text)
	return text[:min(len(text), most)]
}
