package rdstest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// domain is below which all databases have their names.
const domain = "rds.test"

// postgres is one real server. Methods that change it are called by one goroutine
// at a time.
type postgres struct {
	install server.Install
	dir     string // data directory
	socket  string
	port    int
	listen  string
	more    map[string]string
	srv     *server.Server
}

func (f *Fake) newPostgres(dir, listen string) (*postgres, error) {
	l, err := net.Listen("tcp", listen+":0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	socket, err := os.MkdirTemp("", "r")
	if err != nil {
		return nil, err
	}
	return &postgres{install: f.install, dir: dir, socket: socket, port: port, listen: listen, more: map[string]string{
		"ssl": "on", "ssl_cert_file": filepath.Join(f.Home, "server.crt"), "ssl_key_file": filepath.Join(f.Home, "server.key"),
	}}, nil
}

func (p *postgres) start() error {
	settings := map[string]string{"fsync": "off", "shared_buffers": "16MB", "dynamic_shared_memory_type": "mmap", "archive_mode": "off"}
	for k, v := range p.more {
		settings[k] = v
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	srv, err := server.Start(ctx, p.install, server.Options{DataDir: p.dir, SocketDir: p.socket, Port: p.port, Listen: p.listen, Settings: settings, DieWithParent: true})
	if err != nil {
		return err
	}
	p.srv = srv
	return srv.WaitWritable(ctx)
}

func (p *postgres) halt() error {
	if p == nil || p.srv == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := p.srv.Stop(ctx, server.Immediate)
	p.srv = nil
	return err
}

// stop ends the server for good.
func (p *postgres) stop() {
	if p == nil {
		return
	}
	_ = p.halt()
	os.RemoveAll(p.socket)
}

// sql runs statements as the superuser that Amazon keeps to itself.
func (p *postgres) sql(query string) (string, error) { return p.sqlIn("postgres", query) }

func (p *postgres) sqlIn(database, query string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.ConnString(p.socket, p.port, "postgres", database))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, query).ReadAll()
	if err != nil {
		return "", err
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return "", nil
	}
	return string(last.Rows[0][0]), nil
}

// copyTo makes a base backup of the running server.
func (p *postgres) copyTo(dir string) error {
	if p == nil {
		return os.Mkdir(dir, 0o700)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.ConnString(p.socket, p.port, "postgres", "postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "select pg_backup_start('snapshot', true)"); err != nil {
		return err
	}
	_ = exec.Command("cp", "-a", p.dir, dir).Run() // files may vanish meanwhile; that is what the WAL is for
	var label string
	if err := conn.QueryRow(ctx, "select labelfile from pg_backup_stop(false)").Scan(&label); err != nil {
		return err
	}
	for _, name := range []string{"postmaster.pid", "postmaster.opts", "pg_wal"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	_ = exec.Command("cp", "-a", filepath.Join(p.dir, "pg_wal"), filepath.Join(dir, "pg_wal")).Run()
	return os.WriteFile(filepath.Join(dir, "backup_label"), []byte(label), 0o600)
}

func copyDir(to, from string) error {
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return nil
}

// recoverTo prepares a base backup to be recovered out of an archive.
func recoverTo(dir, archive, setting, value string) error {
	conf := fmt.Sprintf("\nrestore_command = 'cp \"%s/%%f\" \"%%p\"'\nrecovery_target_action = promote\nrecovery_target_timeline = current\n%s = '%s'\n", archive, setting, value)
	auto, err := os.OpenFile(filepath.Join(dir, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := auto.WriteString(conf); err != nil {
		return err
	}
	if err := auto.Close(); err != nil {
		return err
	}
	// Only the archive counts, as far as it goes.
	wal := filepath.Join(dir, "pg_wal")
	entries, err := os.ReadDir(wal)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() && len(e.Name()) == 24 {
			os.Remove(filepath.Join(wal, e.Name()))
		}
	}
	return os.WriteFile(filepath.Join(dir, "recovery.signal"), nil, 0o600)
}

// accessRules let the superuser in by the socket, and all others with a password
// and TLS.
const accessRules = "local all all trust\nhostssl all all 0.0.0.0/0 scram-sha-256\n"

// makeCertificates writes the certificate that all servers have.
func (f *Fake) makeCertificates(t testing.TB) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "RDS of the tests"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"*.eu-central-1." + domain, "*.eu-west-1." + domain, "*.us-east-1." + domain}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	f.CA = filepath.Join(f.Home, "server.crt")
	for name, block := range map[string]*pem.Block{"server.crt": {Type: "CERTIFICATE", Bytes: der}, "server.key": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(f.Home, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// hostOf is the name that leads to a database.
func hostOf(region, id string) string { return strings.ToLower(id) + "." + region + "." + domain }
