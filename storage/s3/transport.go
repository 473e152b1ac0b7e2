package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"github.com/lifeboat-dr/lifeboat/storage/direct"
)

// newHTTPClient makes the client for everything, the calls that get
// credentials included. It is the SDK's kind, because no other can be combined
// with the variable AWS_CA_BUNDLE.
func newHTTPClient(o Options) (*awshttp.BuildableClient, error) {
	roots, err := rootCAs(o.CAFile)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: o.DialTimeout}
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.Proxy = direct.Proxy
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{Conn: conn, timeout: o.StallTimeout}, nil
		}
		t.TLSHandshakeTimeout = o.DialTimeout
		t.ResponseHeaderTimeout = o.StallTimeout
		t.MaxIdleConns = 0 // no limit
		t.MaxIdleConnsPerHost = 64
		t.IdleConnTimeout = 90 * time.Second
		t.DisableCompression = true
		// One large transfer a connection: HTTP/2 would put all of them behind
		// one another on a single one.
		t.ForceAttemptHTTP2 = false
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		// The default of 4 KiB means a system call for each 4 KiB.
		t.WriteBufferSize = 256 << 10
		t.ReadBufferSize = 64 << 10
		t.TLSClientConfig = &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            roots,
			ClientSessionCache: tls.NewLRUClientSessionCache(64),
			// The first megabyte of a connection goes in full records too.
			DynamicRecordSizingDisabled: true,
		}
	})
	return client.WithReadTimeout(0), nil // stallConn does that, and for writes as well
}

// rootCAs gives the system's certificates and those in the file; nil, which
// means the system's, without a file.
func rootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the CA file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a system without any
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file %s holds no certificate in PEM form", file)
	}
	return roots, nil
}

// stallConn fails a connection on which nothing moves for too long, in either
// direction; one that is slow goes on. Without it a peer that vanished costs
// the kernel's patience, about a quarter of an hour.
type stallConn struct {
	net.Conn
	timeout time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write gives the read that waits for the answer its full time as well: it
// began when the connection was last used.
func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
