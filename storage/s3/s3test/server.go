// Package s3test starts a real S3 server, versitygw on a scratch directory, for
// tests and benchmarks, and a proxy that makes the way to it long or bad.
package s3test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// BinaryEnv names the variable that says where versitygw is.
const BinaryEnv = "LIFEBOAT_VERSITYGW"

// startTime bounds how long the server may take to answer its first request.
const startTime = 20 * time.Second

// Options say what kind of server to start.
type Options struct {
	Bucket     string // made at the start; "" is "lifeboat-test"
	TLS        bool   // with a certificate of a CA made for this server
	ObjectLock bool   // the bucket keeps versions and can lock objects

	accessKey, secretKey string // "": new ones
}

// Server is a running server.
type Server struct {
	Endpoint  string // URL
	Addr      string // host:port
	Bucket    string
	CAFile    string // PEM; "" without TLS
	Region    string
	AccessKey string
	SecretKey string
	Data      string // directory of the bucket: objects are plain files in it

	options Options
	dir     string
	client  *http.Client
	process *exec.Cmd
	exited  chan struct{}
	output  *output
}

// StartServer starts a server on a free port of 127.0.0.1 that keeps all it
// has in dir, a directory that is empty or not there. It returns when the server
// answers and the bucket is made.
func StartServer(dir string, o Options) (*Server, error) {
	binary, err := findBinary()
	if err != nil {
		return nil, err
	}
	if o.Bucket == "" {
		o.Bucket = "lifeboat-test"
	}
	if o.accessKey == "" {
		o.accessKey, o.secretKey = newKeys()
	}
	s := &Server{
		Bucket: o.Bucket, Region: "us-east-1", AccessKey: o.accessKey, SecretKey: o.secretKey,
		Data: filepath.Join(dir, "data", o.Bucket), options: o, dir: dir,
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	// Between choosing a free port and the server's use of it somebody else
	// may take it.
	for range 5 {
		if err = s.start(binary); err == nil {
			break
		}
	}
	if err == nil {
		err = s.makeBucket()
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func newKeys() (access, secret string) { return "test" + rand.Text()[:12], rand.Text() }

// Env is what a program's environment needs to use the server, for the AWS
// SDK and nothing of the user's own set-up.
func (s *Server) Env() []string {
	const nowhere = "/no-such-file" // the same for each server
	return []string{
		"AWS_ACCESS_KEY_ID=" + s.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_SESSION_TOKEN=",
		"AWS_PROFILE=",
		"AWS_REGION=",
		"AWS_DEFAULT_REGION=",
		"AWS_CA_BUNDLE=",
		"AWS_CONFIG_FILE=" + nowhere,
		"AWS_SHARED_CREDENTIALS_FILE=" + nowhere,
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// Output is what the server has printed.
func (s *Server) Output() string { return s.output.String() }

// Stop kills the server. Its directory stays.
func (s *Server) Stop() error {
	if s.process == nil {
		return nil
	}
	err := s.process.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-s.exited
	s.client.CloseIdleConnections()
	return err
}

// findBinary looks where the variable points, then in the tools directory of the
// module that the working directory belongs to, then in PATH.
func findBinary() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			path := filepath.Join(dir, ".tools", "bin", "versitygw")
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
			break
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	path, err := exec.LookPath("versitygw")
	if err != nil {
		return "", fmt.Errorf("versitygw is missing: run make tools, or set %s", BinaryEnv)
	}
	return path, nil
}

func (s *Server) prepare() error {
	for _, sub := range []string{"data", "versions", "iam"} {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o700); err != nil {
			return err
		}
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 2}
	if s.options.TLS {
		ca, err := writeCertificates(s.dir)
		if err != nil {
			return fmt.Errorf("make certificates: %w", err)
		}
		s.CAFile = filepath.Join(s.dir, "ca.pem")
		pool := x509.NewCertPool()
		pool.AddCert(ca)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	s.client = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return nil
}

func (s *Server) start(binary string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Addr = listener.Addr().String()
	if err := listener.Close(); err != nil {
		return err
	}
	// Real S3 keeps connections open; this server must be told to.
	args := []string{"--port", s.Addr, "--region", s.Region, "--health", "/health", "--quiet", "--keep-alive"}
	s.Endpoint = "http://" + s.Addr
	if s.options.TLS {
		s.Endpoint = "https://" + s.Addr
		args = append(args, "--cert", filepath.Join(s.dir, "server.pem"), "--key", filepath.Join(s.dir, "server.key"))
	}
	args = append(args, "posix")
	if s.options.ObjectLock {
		args = append(args, "--versioning-dir", filepath.Join(s.dir, "versions"))
	}
	args = append(args, filepath.Join(s.dir, "data"))

	s.output = new(output)
	s.process = exec.Command(binary, args...)
	s.process.Dir = s.dir
	s.process.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.AccessKey, "ROOT_SECRET_KEY="+s.SecretKey)
	s.process.Stdout, s.process.Stderr = s.output, s.output
	dieWithParent(s.process)
	if err := s.run(); err != nil {
		return fmt.Errorf("start versitygw: %w", err)
	}
	return s.waitReady()
}

// run starts the process from a thread that lives as long as the process
// does: Linux tells a child that its parent died when the parent's thread did.
func (s *Server) run() error {
	started := make(chan error, 1)
	exited := make(chan struct{})
	process := s.process
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := process.Start()
		started <- err
		if err == nil {
			_ = process.Wait() // killed, or waitReady tells what it printed
		}
	}()
	err := <-started
	s.exited = exited
	if err != nil {
		s.process = nil
	}
	return err
}

func (s *Server) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/health", nil)
		if err != nil {
			return err
		}
		response, err := s.client.Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(response.Status)
		}
		select {
		case <-s.exited:
			return fmt.Errorf("versitygw ended at once: %s", s.output)
		case <-ctx.Done():
			return fmt.Errorf("versitygw does not answer: %w: %s", err, s.output)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// DefaultRetention makes the bucket lock new objects that ask for nothing. It needs
// Options.ObjectLock.
func (s *Server) DefaultRetention(ctx context.Context, mode string, days int) error {
	rule := types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Mode: types.ObjectLockRetentionMode(mode), Days: aws.Int32(int32(days))}}
	_, err := s.api().PutObjectLockConfiguration(ctx, &s3.PutObjectLockConfigurationInput{Bucket: &s.Bucket,
		ObjectLockConfiguration: &types.ObjectLockConfiguration{ObjectLockEnabled: types.ObjectLockEnabledEnabled, Rule: &rule}})
	return err
}

// api is a client with all rights.
func (s *Server) api() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &s.Endpoint, Region: s.Region, UsePathStyle: true, HTTPClient: s.client,
		Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, "")),
	})
}

func (s *Server) makeBucket() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	_, err := s.api().CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &s.Bucket, ObjectLockEnabledForBucket: &s.options.ObjectLock})
	if err != nil {
		return fmt.Errorf("make bucket %s: %w", s.Bucket, err)
	}
	return nil
}

// output collects what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
