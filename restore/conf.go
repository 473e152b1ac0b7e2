package restore

import (
	"slices"
	"strings"
)

// The first and last line of the block that a restore adds to
// postgresql.auto.conf.
const (
	blockBegin = "# --- Lifeboat's restore wrote these settings; they beat those of postgresql.conf ---"
	blockEnd   = "# --- end of Lifeboat's settings ---"
)

// rewriteAutoConf takes the settings that are set again, and what is left of the
// block of an earlier restore, out of the text of postgresql.auto.conf and adds
// the new block. All other lines stay. The order of the settings is kept.
func rewriteAutoConf(old string, settings []Setting) string {
	var drop []string
	for _, s := range settings {
		drop = append(drop, s.Name)
	}
	var b strings.Builder
	for line := range strings.Lines(old) {
		line = strings.TrimRight(line, "\r\n")
		name := strings.ToLower(settingName(line))
		if line == blockBegin || line == blockEnd || name != "" && slices.Contains(drop, name) {
			continue
		}
		b.WriteString(line + "\n")
	}
	b.WriteString(blockBegin + "\n")
	for _, s := range settings {
		b.WriteString(s.Name + " = " + quoteSetting(s.Value) + "\n")
	}
	b.WriteString(blockEnd + "\n")
	return b.String()
}

// AutoConf is the text of a postgresql.auto.conf that holds these settings and
// nothing else.
func AutoConf(settings []Setting) string { return rewriteAutoConf("", settings) }

// settingName is the name that a line of a configuration file sets, "" when it
// sets none (the rules of utils/misc/guc-file.l: "=" may be left out).
func settingName(line string) string {
	s := strings.TrimLeft(line, " \t\r\f\v")
	i := strings.IndexFunc(s, func(r rune) bool {
		return !(r == '_' || r == '.' || r == '$' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80)
	})
	if i < 0 {
		i = len(s)
	}
	return s[:i]
}

// quoteSetting quotes a value for a configuration file (DeescapeQuotedString
// in utils/misc/guc-file.l undoes it).
func quoteSetting(v string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(v) + "'"
}

// setsDataDirectory says whether the text of postgresql.conf names a data
// directory: the server would then work there, wherever it was restored to.
func setsDataDirectory(text string) bool {
	for line := range strings.Lines(text) {
		if strings.EqualFold(settingName(line), "data_directory") {
			return true
		}
	}
	return false
}
