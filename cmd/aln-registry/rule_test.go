package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// ruleOf parses a command line as quarantine add does.
func ruleOf(t *testing.T, before *particle.QuarantineRule, args ...string) (particle.QuarantineRule, error) {
	t.Helper()
	var f ruleFlags
	c := &cobra.Command{}
	f.register(c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	f.given = c.Flags().Changed
	return f.compose(before, nil, someNow)
}

func TestRuleFlagsBecomeARule(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string // as shown
		err  string
	}{
		"a name":                {[]string{"--name", "foo", "--reason", "r"}, "deny enforce foo r none never none", ""},
		"all of a match":        {[]string{"--name", "foo*,bar", "--version", "<2", "--source", "hosted", "--content", "blake3", "--publisher", someHost, "--reason", "r"}, "deny enforce foo*|bar and version <2 and publisher " + someHost + " and source hosted and content blake3 r none never none", ""},
		"a hash":                {[]string{"--hash", hashOfText("x"), "--reason", "r", "--expires", "30d", "--grace", "1d"}, "deny enforce hash " + hashOfText("x") + " r none 2027-02-01T03:04:05Z until 2027-01-03T03:04:05Z", ""},
		"a dry run":             {[]string{"--name", "foo", "--reason", "r", "--dry-run-rule"}, "deny dry_run foo r none never none", ""},
		"a waiver":              {[]string{"--name", "foo", "--reason", "r", "--effect", "waive_min_age", "--mode", "enforce"}, "waive_min_age enforce foo r none never none", ""},
		"nothing":               {[]string{"--reason", "r"}, "", "what is the rule about?"},
		"no reason":             {[]string{"--name", "foo"}, "", "--reason is missing"},
		"an empty match":        {[]string{"--name", "", "--reason", "r"}, "", "would hit everything"},
		"a bad pattern":         {[]string{"--name", "a b", "--reason", "r"}, "", "names"},
		"a bad version":         {[]string{"--name", "a", "--version", "two", "--reason", "r"}, "", "--version"},
		"a bad source":          {[]string{"--source", "here", "--reason", "r"}, "", "is not hosted, crates-io, upstream/NAME or mirror/NAME"},
		"a bad effect":          {[]string{"--name", "a", "--effect", "warn", "--reason", "r"}, "", "is not deny or waive_min_age"},
		"no publisher":          {[]string{"--publisher", "ada", "--reason", "r"}, "", "--publisher"},
		"a version in the name": {[]string{"--name", "a@1.2.3", "--reason", "r"}, "", "write --name 'a' --version '=1.2.3'"},
		"grace over":            {[]string{"--name", "a", "--reason", "r", "--grace", "2020-01-01"}, "", "--grace 2020-01-01: that is past"},
		"expired":               {[]string{"--name", "a", "--reason", "r", "--expires", "2020-01-01"}, "", "--expires 2020-01-01: that is past"},
		"grace too long":        {[]string{"--name", "a", "--reason", "r", "--grace", "2d", "--expires", "1d"}, "", "grace does not end before"},
		"two lines":             {[]string{"--name", "a", "--reason", "r\nr"}, "", "not one line"},
	} {
		rule, err := ruleOf(t, nil, c.args...)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || !isUsage(err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var shown []string
		for _, row := range ruleRows(rule) {
			shown = append(shown, row[1])
		}
		if got := strings.Join(shown, " "); err != nil || got != c.want {
			t.Errorf("%s: %q, want %q; %v", name, got, c.want, err)
		}
	}
}

// An amendment keeps what no flag names.
func TestAnAmendmentKeepsTheRest(t *testing.T) {
	before, _ := particle.Shipped("blake3")
	after, err := ruleOf(t, &before, "--mode", "dry_run", "--expires", "1d")
	if err != nil || len(after.Match) != 2 || after.Reason != before.Reason {
		t.Fatalf("%+v, %v", after, err)
	}
	var changed []string
	for _, row := range ruleDifferences(before, after) {
		changed = append(changed, strings.Join(row, " "))
	}
	if !slices.Equal(changed, []string{"  mode enforce -> dry_run", "  expires never -> 2027-01-03T03:04:05Z"}) {
		t.Errorf("%q", changed)
	}
	again, err := ruleOf(t, &after, "--expires", "never", "--name", "bad")
	if err != nil || again.Expires != nil || again.Mode != particle.ModeDryRun || len(again.Match) != 3 || again.Match[2].Names[0] != "bad" {
		t.Errorf("%+v, %v", again, err)
	}
	if same, err := ruleOf(t, &again, "--name", "bad"); err != nil || len(ruleDifferences(again, same)) != 0 {
		t.Errorf("what it describes already is added: %+v, %v", same, err)
	}
	if len(before.Match) != 2 || before.Mode != particle.ModeEnforce || before.Expires != nil {
		t.Errorf("the rule before was changed: %+v", before)
	}
}

// A rule that was shown can be made again from a file.
func TestARuleComesFromAFile(t *testing.T) {
	shipped, _ := particle.Shipped("blake3")
	raw, err := json.Marshal(shipped)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rule.json")
	write(t, path, string(raw))
	rule, err := ruleOf(t, nil, "--rule", path)
	if err != nil || len(ruleDifferences(shipped, rule)) != 0 {
		t.Errorf("%+v, %v", rule, err)
	}
	write(t, path, `{"effect":"deny","wat":1}`)
	if _, err := ruleOf(t, nil, "--rule", path); err == nil {
		t.Error("a member that nobody knows is passed over")
	}
}
