package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"html"
	"image"
	"image/draw"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

var pictures = flag.String("update-picture", "", "a directory that the tests' account can write to: TestReportPicture makes the pictures of docs/images there")

// TestReportPicture makes the pictures in docs/images of a real report: drills
// of a scratch cluster under load, one of which misses its objective.
//
//	install -d -m 777 /tmp/pictures
//	go test ./cmd/lifeboat -run TestReportPicture -update-picture /tmp/pictures
func TestReportPicture(t *testing.T) {
	t.Parallel()
	if *pictures == "" {
		t.Skip("-update-picture names no directory: the pictures of docs/images stay as they are")
	}
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed (scripts/packages chromium)")
	}
	s := newSite(t, siteOptions{server: servertest.Options{Checksums: true, Settings: map[string]string{"archive_timeout": "2s"}}})
	s.configure(t, `  checks:
    - {name: the newest order is recent, sql: select max(at) from load, newer_than: 15m}
    - {name: orders are complete, sql: select count(*) from ballast, expect: 400000}
`)
	s.Exec(t, "create table load (n bigint primary key, at timestamptz, filler text)")
	s.Exec(t, "create table ballast as select i, md5(i::text) from generate_series(1, 400000) i")
	startLoad(t, s.Cluster, 1, 10*time.Millisecond)
	s.run(t, "backup", "--fingerprints")
	page := filepath.Join(t.TempDir(), "report.html")
	for i := range 9 {
		args := []string{"--rpo", "1m", "--rto", "2m", "--level", "deep"}
		want := exitOK
		switch {
		case i == 3:
			args, want = []string{"--rpo", "1m", "--rto", "100ms"}, exitMissed
		case i == 8:
			args = append(args, "--html", page)
		case i%3 == 1:
			s.run(t, "backup", "--fingerprints")
		}
		time.Sleep(time.Duration(i*377%1500) * time.Millisecond) // another moment of archive_timeout
		s.drilled(t, want, args...)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	// The name of whatever host this ran on is nobody's business.
	writeFile(t, page, strings.ReplaceAll(string(text), html.EscapeString(hostName()), "db-1.example.net"))
	for _, p := range []struct {
		name          string
		width, height int
		mode          string
	}{
		{"drill-report.png", 1280, 1088, "light"}, {"drill-report-dark.png", 1280, 1088, "dark"}, {"drill-report-phone.png", 390, 1180, "light"},
	} {
		shootPicture(t, browser, page, filepath.Join(*pictures, p.name), p.width, p.height, p.mode)
	}
}

// shootPicture takes a picture of the top of a page, in a frame: a window of
// Chromium is never narrower than 500 pixels.
func shootPicture(t *testing.T, browser, page, to string, width, height int, mode string) {
	t.Helper()
	dir := t.TempDir()
	frame, shot := filepath.Join(dir, "frame.html"), filepath.Join(dir, "shot.png")
	writeFile(t, frame, fmt.Sprintf(`<!DOCTYPE html><meta name="color-scheme" content="light dark"><body style="margin:0"><iframe src="file://%s" width="%d" height="%d" scrolling="no" style="border:0;display:block"></iframe>`, page, width, height))
	args := []string{"--headless", "--no-sandbox", "--allow-file-access-from-files", "--disable-gpu", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir=" + dir, "--hide-scrollbars", fmt.Sprintf("--window-size=%d,%d", max(width, 500), height),
		"--virtual-time-budget=2000", "--screenshot=" + shot}
	if mode == "dark" {
		args = append(args, "--blink-settings=preferredColorScheme=0")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser, append(args, "file://"+frame)...)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(shot)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	cut := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.Draw(cut, cut.Bounds(), whole, image.Point{}, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, cut); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 300<<10 {
		t.Errorf("%s has %d KiB, at most 300 are wanted", to, out.Len()>>10)
	}
	if err := os.WriteFile(to, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
