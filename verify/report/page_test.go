package report_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

// pages are what a page is held to.
func pages(t *testing.T) map[string][]byte {
	t.Helper()
	made := map[string]*report.History{
		"passed":  history(t, season(60, passed)...),
		"failed":  history(t, season(60, failed)...),
		"unknown": history(t, season(4, unknown)...),
		"first":   history(t, first(began)),
		"one":     history(t, passed(began)),
		"hostile": report.NewHistory(hostile, chain(t, newKey(t), evil(began), evil(began.Add(time.Minute))), nil, time.Time{}, began),
		"none":    report.NewHistory("shop", nil, nil, began, began),
	}
	out := map[string][]byte{}
	for name, h := range made {
		out[name+".html"] = written(t, func(w io.Writer) error { return h.HTML(w, nil) })
	}
	return out
}

// The page runs nothing and fetches nothing, whatever the evidence says.
func TestPageIsInert(t *testing.T) {
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`)
	for name, page := range pages(t) {
		text := string(page)
		for _, bad := range []string{"<script", "<img", "<iframe", "<link", "@import", "url(", "http:", "https:", "javascript:", "ZgotmplZ", " style=", " onload", "\x1b", "\u202e", "\x00"} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(bad)) {
				t.Errorf("%s holds %q", name, bad)
			}
		}
		styles := style.FindAllStringSubmatch(text, -1)
		if len(styles) != 1 {
			t.Fatalf("%s has %d styles", name, len(styles))
		}
		sum := sha256.Sum256([]byte(styles[0][1]))
		want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
		if !strings.Contains(strings.NewReplacer("&#39;", "'", "&#43;", "+").Replace(text), want) {
			t.Errorf("%s: the policy does not let its own style in", name)
		}
	}
}

// Letters must stand out from what is behind them: WCAG 2.2 AA asks for 4.5,
// and 3 for marks.
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("page/style.css")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(css), -1)
	if len(blocks) != 3 {
		t.Fatalf("%d sets of colours, want light, dark and print", len(blocks))
	}
	for i, mode := range []string{"light", "dark", "print"} {
		colours := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6})`).FindAllStringSubmatch(blocks[i][1], -1) {
			colours[m[1]] = m[2]
		}
		hold := func(front, back string, least float64) {
			if c := contrast(t, colours[front], colours[back]); c < least {
				t.Errorf("%s: %s on %s has the contrast %.2f, want %.1f", mode, front, back, c, least)
			}
		}
		for _, back := range []string{"paper", "ground"} {
			for _, front := range []string{"ink", "muted", "passed", "failed", "unknown"} {
				hold(front, back, 4.5)
			}
		}
		for _, v := range []string{"passed", "failed", "unknown"} {
			hold(v, v+"-ground", 4.5)
			hold("ink", v+"-ground", 4.5)
		}
		hold("accent", "track", 3)
		hold("strong", "track", 3)
	}
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	light := func(hex string) float64 {
		n, err := strconv.ParseUint(hex, 16, 32)
		if err != nil {
			t.Fatalf("no colour: %q", hex)
		}
		sum := 0.0
		for i, weight := range []float64{0.0722, 0.7152, 0.2126} {
			c := float64(n>>(8*i)&0xff) / 255
			if c <= 0.04045 {
				c /= 12.92
			} else {
				c = math.Pow((c+0.055)/1.055, 2.4)
			}
			sum += weight * c
		}
		return sum
	}
	x, y := light(a), light(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// TestPageInChromium looks at the pages as a browser draws them: at the width
// of a desk and of a phone nothing sticks out, the style came through the
// policy, and there is a dark mode. LIFEBOAT_SHOTS names a folder for the pictures.
func TestPageInChromium(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed (scripts/packages chromium): how the pages look is not tested")
	}
	all := pages(t)
	for name, p := range packPages(t) {
		all[name] = p
	}
	shots := os.Getenv("LIFEBOAT_SHOTS")
	for name, page := range all {
		folder := t.TempDir()
		inner := filepath.Join(folder, "page.html")
		if err := os.WriteFile(inner, page, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, width := range []int{1280, 360} {
			checkWidth(t, browser, folder, name, width)
			var light [3]uint32
			for _, mode := range []string{"light", "dark"} {
				shot := filepath.Join(folder, "shot.png")
				if shots != "" {
					shot = filepath.Join(shots, fmt.Sprintf("%s-%d-%s.png", strings.TrimSuffix(name, ".html"), width, mode))
				} else if name != "failed.html" {
					continue // one page shows that the modes differ
				}
				corner := shoot(t, browser, folder, shot, width, mode)
				if mode == "light" {
					light = corner
				} else if corner[0] > 0x4000 || light[0] < 0xc000 {
					t.Errorf("%s: light is %x, dark is %x", name, light, corner)
				}
			}
		}
	}
}

// checkWidth asks a page around the page, of the wanted width, how wide the
// page is inside: a window of Chromium is never narrower than 500 pixels.
func checkWidth(t *testing.T, browser, folder, name string, width int) {
	t.Helper()
	outer := filepath.Join(folder, "outer.html")
	text := fmt.Sprintf(`<!DOCTYPE html><iframe id="f" src="page.html" width="%d" height="900" style="border:0"></iframe><pre id="out"></pre><script>
document.getElementById("f").onload = function () {
  var d = this.contentDocument, out = [d.documentElement.scrollWidth, d.documentElement.clientWidth, getComputedStyle(d.body).margin !== "8px"], right = "";
  d.querySelectorAll("body *").forEach(function (e) { var r = e.getBoundingClientRect(); if (r.right > %d + 0.5) right += e.tagName + " " + Math.round(r.right) + " " + e.textContent.slice(0, 30) + "; "; });
  document.getElementById("out").textContent = "RESULT " + out.join(" ") + " [" + right + "]";
};</script>`, width, width)
	if err := os.WriteFile(outer, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	dom := chromium(t, browser, folder, "--allow-file-access-from-files", "--window-size=1400,1000", "--virtual-time-budget=2000", "--dump-dom", "file://"+outer)
	m := regexp.MustCompile(`RESULT (\d+) (\d+) (\w+) (\[.*?\])`).FindSubmatch(dom)
	switch {
	case m == nil:
		t.Errorf("%s at %d: no answer: %s", name, width, dom[max(0, len(dom)-400):])
	case string(m[1]) != string(m[2]):
		t.Errorf("%s at %d: it is %s wide in %s: %s", name, width, m[1], m[2], m[4])
	case string(m[3]) != "true":
		t.Errorf("%s: the style does not count", name)
	case len(m[4]) > 2:
		t.Errorf("%s at %d: sticks out: %s", name, width, m[4])
	}
}

// shoot takes a picture in a frame of the wanted width and returns the colour
// of its corner, which is the ground of the page.
func shoot(t *testing.T, browser, folder, shot string, width int, mode string) [3]uint32 {
	t.Helper()
	outer := filepath.Join(folder, "frame.html")
	text := fmt.Sprintf(`<!DOCTYPE html><meta name="color-scheme" content="light dark"><body style="margin:0"><iframe id="f" src="page.html" width="%d" height="900" style="border:0;display:block"></iframe><script>
f.onload = function () { f.height = f.contentDocument.documentElement.scrollHeight; };</script>`, width)
	if err := os.WriteFile(outer, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"--allow-file-access-from-files", "--hide-scrollbars", fmt.Sprintf("--window-size=%d,%d", max(width, 500), 2400), "--virtual-time-budget=2000", "--screenshot=" + shot}
	if mode == "dark" {
		args = append(args, "--blink-settings=preferredColorScheme=0")
	}
	chromium(t, browser, folder, append(args, "file://"+outer)...)
	raw, err := os.ReadFile(shot)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if img.Bounds() == (image.Rectangle{}) {
		t.Fatal("the picture is empty")
	}
	r, g, b, _ := img.At(2, 2).RGBA()
	return [3]uint32{r, g, b}
}

func chromium(t *testing.T, browser, folder string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	profile, err := os.MkdirTemp(folder, "profile")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, browser, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir=" + profile,
	}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, errs.Bytes())
	}
	return out
}

func packPages(t *testing.T) map[string][]byte { t.Helper(); return nil }

var _ = evidence.Passed
