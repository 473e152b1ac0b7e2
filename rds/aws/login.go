package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// Dialer is how databases are logged in to.
type Dialer struct {
	Cloud    *Cloud
	Login    rds.Login
	Getenv   func(name string) string
	Env      []string // of this process, for commands
	Resolver string   // host:port of a name server; "" is the system's
	Now      func() time.Time
}

// Connect leads to a database. A secret is fetched, and a token made, when the
// connection is opened: a token holds for 15 minutes.
func (d *Dialer) Connect(db *rds.Database, region string) (probe.Conn, error) {
	if db.Host == "" || db.Port == 0 {
		return probe.Conn{}, &rds.StateError{What: string(db.Kind) + " " + db.ID, State: "without an address", Want: "available"}
	}
	c := probe.Conn{Host: db.Host, Port: db.Port, Role: d.Login.Role, Env: d.Env, Name: "lifeboat rds"}
	if err := d.secure(&c); err != nil {
		return c, err
	}
	if d.Resolver != "" {
		c.Lookup = Resolver(d.Resolver)
	}
	switch {
	case d.Login.IAM:
		c.Password = func(ctx context.Context) (string, error) { return d.token(ctx, region, db) }
	case d.Login.Secret != "":
		c.Password = func(ctx context.Context) (string, error) { return d.secret(ctx, region) }
	case d.Login.PasswordEnv != "":
		c.Password = func(context.Context) (string, error) {
			if v := d.Getenv(d.Login.PasswordEnv); v != "" {
				return v, nil
			}
			return "", &rds.PasswordError{Variable: d.Login.PasswordEnv}
		}
	}
	return c, nil
}

// secure always encrypts. Whom it speaks to is verified only with the
// certificates of RDS: no system trusts them by itself.
func (d *Dialer) secure(c *probe.Conn) error {
	c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.Host, InsecureSkipVerify: true}
	c.SSLEnv = []string{"PGSSLMODE=require"}
	if d.Login.CAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(d.Login.CAFile)
	if err != nil {
		return fmt.Errorf("read the certificates of RDS: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("read the certificates of RDS: %s holds none in PEM form", d.Login.CAFile)
	}
	c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.Host, RootCAs: roots}
	c.SSLEnv = []string{"PGSSLMODE=verify-full", "PGSSLROOTCERT=" + d.Login.CAFile}
	return nil
}

// Resolver asks a name server, and keeps nothing.
func Resolver(server string) func(ctx context.Context, host string) ([]string, error) {
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, "53")
	}
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, server)
	}}
	return func(ctx context.Context, host string) ([]string, error) {
		if net.ParseIP(host) != nil {
			return []string{host}, nil
		}
		return r.LookupHost(ctx, host+".")
	}
}

// token makes a token of IAM database authentication: a URL that is signed for the
// service rds-db (Amazon's user guide, "IAM database authentication").
func (d *Dialer) token(ctx context.Context, region string, db *rds.Database) (string, error) {
	cfg, err := d.Cloud.config(region)
	if err != nil {
		return "", err
	}
	credentials, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return "", &rds.Error{Action: "rds-db:connect", Message: "no AWS credentials could be had", Err: rds.ErrCredentials}
	}
	values := url.Values{"Action": {"connect"}, "DBUser": {d.Login.Role}, "X-Amz-Expires": {"900"}}
	host := net.JoinHostPort(db.Host, strconv.Itoa(db.Port))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/?"+values.Encode(), nil)
	if err != nil {
		return "", err
	}
	none := sha256.Sum256(nil)
	signed, _, err := v4.NewSigner().PresignHTTP(ctx, credentials, req, hex.EncodeToString(none[:]), "rds-db", region, d.Now())
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(signed, "https://"), nil
}

// secret fetches the password from Secrets Manager: the member "password" of a
// JSON object, as RDS writes it, or the whole text. One call does not need a
// module of the SDK.
func (d *Dialer) secret(ctx context.Context, region string) (string, error) {
	if parts := strings.Split(d.Login.Secret, ":"); len(parts) > 6 && parts[0] == "arn" {
		region = parts[3]
	}
	cfg, err := d.Cloud.config(region)
	if err != nil {
		return "", err
	}
	credentials, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return "", &rds.Error{Action: "secretsmanager:GetSecretValue", Message: "no AWS credentials could be had", Err: rds.ErrCredentials}
	}
	endpoint := d.Cloud.o.Endpoint
	if endpoint == "" {
		endpoint = "https://secretsmanager." + region + ".amazonaws.com"
	}
	body, _ := json.Marshal(map[string]string{"SecretId": d.Login.Secret})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "secretsmanager.GetSecretValue")
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, credentials, req, hex.EncodeToString(sum[:]), "secretsmanager", region, d.Now()); err != nil {
		return "", err
	}
	resp, err := d.Cloud.client.Do(req)
	if err != nil {
		return "", &rds.Error{Action: "secretsmanager:GetSecretValue", Message: "Secrets Manager could not be reached", Err: rds.ErrUnavailable}
	}
	defer resp.Body.Close()
	var out struct {
		SecretString string
		Type         string `json:"__type"`
		Message      string
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if bad := json.Unmarshal(raw, &out); err != nil || bad != nil || resp.StatusCode != http.StatusOK {
		return "", secretError(resp.StatusCode, out.Type, out.Message)
	}
	var object struct{ Password *string }
	if json.Unmarshal([]byte(out.SecretString), &object) == nil && object.Password != nil {
		return *object.Password, nil
	}
	return out.SecretString, nil
}

// secretError is an answer of Secrets Manager that is no secret.
func secretError(status int, code, message string) error {
	code = code[strings.LastIndex(code, "#")+1:]
	e := &smithy.GenericAPIError{Code: code, Message: message}
	if status >= http.StatusInternalServerError {
		e.Fault = smithy.FaultServer
	}
	if message == "" {
		message = fmt.Sprintf("HTTP %d", status)
	}
	return &rds.Error{Action: "secretsmanager:GetSecretValue", Code: code, Message: message, Err: meaning(e)}
}
