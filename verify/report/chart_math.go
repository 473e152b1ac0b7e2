package report

import "math"

func logRatio(a, b float64) float64 {
	if a <= 0 || b <= 0 || a == b {
		return 1
	}
	return math.Log(a / b)
}

// round keeps a tenth: more would only be noise in the page.
func round(v float64) float64 { return math.Round(v*10) / 10 }
