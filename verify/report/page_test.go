package report_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"image/png"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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
	files := unpacked(t, quarter(t))
	out["pack-index.html"], out["pack-mapping.html"] = files["index.html"], files["mapping.html"]
	return out
}

// The page runs nothing and fetches nothing, whatever the evidence says.
func TestPageIsInert(t *testing.T) {
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`)
	for name, page := range pages(t) {
		text := string(page)
		for _, bad := range []string{"<script", "<img", "<iframe", "<link", "@import", "url(", "http:", "https:", "javascript:", "<form", "ZgotmplZ", " style=", " onload", "\x1b", "\u202e", "\x00"} {
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
		hold("accent", "paper", 4.5)
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
// policy, and there is a dark mode. LIFEBOAT_SHOTS names a directory for pictures of
// all of them.
func TestPageInChromium(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed (scripts/packages chromium): how the pages look is not tested")
	}
	if testing.Short() {
		t.Skip("-short: how the pages look is not tested")
	}
	directory := t.TempDir()
	all := pages(t)
	for name, page := range all {
		if err := os.WriteFile(filepath.Join(directory, name), page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	checkWidths(t, browser, directory, slices.Sorted(maps.Keys(all)))
	light := shoot(t, browser, directory, "failed.html", filepath.Join(directory, "light.png"), 1280, "light")
	dark := shoot(t, browser, directory, "failed.html", filepath.Join(directory, "dark.png"), 1280, "dark")
	if light[0] < 0xc000 || dark[0] > 0x4000 {
		t.Errorf("the ground is %x when light, %x when dark", light, dark)
	}
	if shots := os.Getenv("LIFEBOAT_SHOTS"); shots != "" {
		for name := range all {
			for _, width := range []int{1280, 360} {
				for _, mode := range []string{"light", "dark"} {
					shoot(t, browser, directory, name, filepath.Join(shots, fmt.Sprintf("%s-%d-%s.png", strings.TrimSuffix(name, ".html"), width, mode)), width, mode)
				}
			}
		}
	}
}

const widthsPage = `<!DOCTYPE html><pre id="out"></pre><script>
var left = 0, lines = [];
function look(name, width) {
  var f = document.createElement("iframe");
  f.width = width; f.height = 900; f.src = name; f.style.border = 0; left++;
  f.onload = function () {
    var d = f.contentDocument, root = d.documentElement, out = [];
    d.querySelectorAll("body *").forEach(function (e) {
      var r = e.getBoundingClientRect();
      if (r.right > root.clientWidth + 0.5) out.push(e.tagName + " " + e.textContent.slice(0, 30));
      if (e.tagName == "TH" && e.scope == "row" && r.width < 60) out.push("narrow: " + e.textContent.slice(0, 30));
    });
    if (root.scrollWidth > root.clientWidth) out.push("it scrolls: " + root.scrollWidth + " in " + root.clientWidth);
    if (getComputedStyle(d.body).lineHeight == "normal") out.push("the style does not count");
    lines.push("LOOKED " + name + " at " + width + (out.length ? ": BAD " + out.join("; ") : ""));
    if (!--left) document.getElementById("out").textContent = lines.join("\n") + "\nEND";
  };
  document.body.append(f);
}
%s</script>`

// checkWidths asks a page around the pages, in frames of the wanted widths: a
// window of Chromium is never narrower than 500 pixels.
func checkWidths(t *testing.T, browser, directory string, names []string) {
	t.Helper()
	var calls strings.Builder
	for _, name := range names {
		fmt.Fprintf(&calls, "look(%q, 1280); look(%q, 360); look(%q, 768);\n", name, name, name)
	}
	outer := filepath.Join(directory, "widths.html")
	if err := os.WriteFile(outer, fmt.Appendf(nil, widthsPage, calls.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	dom := string(chromium(t, browser, directory, "--window-size=1400,1000", "--virtual-time-budget=10000", "--dump-dom", "file://"+outer))
	if n := strings.Count(dom, "\nLOOKED ") + strings.Count(dom, ">LOOKED "); n != 3*len(names) {
		t.Errorf("%d answers for %d pages: %s", n, len(names), dom[:min(len(dom), 2000)])
	}
	for l := range strings.Lines(dom) {
		if _, bad, ok := strings.Cut(l, "LOOKED "); ok && strings.Contains(bad, ": BAD ") && !strings.Contains(l, "lines.push") {
			t.Error(strings.TrimSpace(l))
		}
	}
}

// shoot takes a picture in a frame of the wanted width and returns the colour
// of its corner, which is the ground of the page.
func shoot(t *testing.T, browser, directory, page, shot string, width int, mode string) [3]uint32 {
	t.Helper()
	outer := filepath.Join(directory, "frame.html")
	text := fmt.Sprintf(`<!DOCTYPE html><meta name="color-scheme" content="light dark"><body style="margin:0"><iframe src="%s" width="%d" height="4400" style="border:0;display:block"></iframe>`, page, width)
	if err := os.WriteFile(outer, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"--hide-scrollbars", fmt.Sprintf("--window-size=%d,4400", max(width, 500)), "--virtual-time-budget=2000", "--screenshot=" + shot}
	if mode == "dark" {
		args = append(args, "--blink-settings=preferredColorScheme=0")
	}
	chromium(t, browser, directory, append(args, "file://"+outer)...)
	raw, err := os.ReadFile(shot)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	r, g, b, _ := img.At(2, 2).RGBA()
	return [3]uint32{r, g, b}
}

func chromium(t *testing.T, browser, directory string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	profile, err := os.MkdirTemp(directory, "profile")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, browser, append([]string{
		"--headless", "--no-sandbox", "--allow-file-access-from-files", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir=" + profile,
	}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+profile)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, errs.Bytes())
	}
	return out
}

// The page says what holds of the fence, what of it does not, and which ways out led
// where, the worst first.
func TestPageFence(t *testing.T) {
	d := passed(began)
	d.Fence.Tried = append(d.Fence.Tried, evidence.Attempt{What: "read a file in /dev/shm", Outcome: "reached"})
	h := history(t, d)
	text := string(written(t, func(w io.Writer) error { return h.HTML(w, nil) }))
	last := -1
	for _, want := range []string{
		"hold</b> mounts", "missing</b> memory: no bound was asked for", "2 blocked, 1 reached, 1 not proven",
		"reached</span></td><th scope=\"row\">read a file in /dev/shm", "not proven</span></td><th scope=\"row\">change the root",
		"operation not permitted; without the fence: operation not permitted", "blocked</span></td><th scope=\"row\">see a process",
	} {
		at := strings.Index(text, want)
		if at <= last {
			t.Errorf("%q stands at %d, after %d", want, at, last)
		}
		last = max(last, at)
	}
	d.Fence.Tried = nil
	h = history(t, d)
	if text := string(written(t, func(w io.Writer) error { return h.HTML(w, nil) })); !strings.Contains(text, "Nothing was tried") {
		t.Error("that nothing was tried is not said")
	}
}
