package cargo

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// Bounds of crates.io (src/controllers/krate/publish.rs, models/keyword.rs and
// models/category.rs of rust-lang/crates.io), but for the license's.
const (
	mostKeywords    = 5
	mostKeywordSize = 20
	mostCategories  = 5
	mostLicenseSize = 1 << 10
	mostURLSize     = 2 << 10
)

// compilerNames are crates.io's reserved names beyond those of reserved, in
// canonical form: crates of the compiler and its tests, of old and of today
// (migrations of rust-lang/crates.io, table reserved_crate_names).
var compilerNames = []string{
	"arena", "ast", "builtins", "collections", "compiler_builtins", "compiler_rt", "compiletest", "coretest",
	"debug", "driver", "flate", "fmt_macros", "grammar", "graphviz", "macro", "macros", "rbml", "rust_installer",
	"rustbook", "rustc", "rustc_back", "rustc_borrowck", "rustc_driver", "rustc_llvm", "rustc_resolve",
	"rustc_trans", "rustc_typeck", "rustdoc", "rustllvm", "rustuv", "serialize", "syntax", "unicode",
}

// CheckPublish tells whether a crate that Inspect has read may be published
// now, under the settings s. It holds the rules that bind what comes in from
// today on and not what was published before them: those of crates.io on
// names, texts and requirements, and whether Line will make an index line.
//
// Not taken over from crates.io: that a description and a license are required
// and the license is of SPDX's list (a lab's own crates often have neither), its
// list of categories, and its counts of features and dependencies
// (MaxLineBytes bounds both).
func (c *Crate) CheckPublish(s IndexSettings) error {
	for _, check := range []func() error{c.checkName, c.checkTexts, c.checkKeywords, c.checkURLs, c.checkRequirements} {
		if err := check(); err != nil {
			return err
		}
	}
	return c.checkLine(s)
}

func (c *Crate) checkName() error {
	if slices.Contains(compilerNames, CanonicalName(c.Name)) {
		return problem(ErrName, CodeReservedName, "%q is a reserved name, as on crates.io; choose another name for the crate", c.Name)
	}
	return nil
}

// checkTexts keeps out of indexes, logs and terminals what only disturbs there.
func (c *Crate) checkTexts() error {
	control := func(r rune) bool { return unicode.IsControl(r) }
	if strings.ContainsFunc(c.Description, func(r rune) bool { return control(r) && !strings.ContainsRune("\t\r\n", r) }) {
		return badField("description", "holds a control character; take it out")
	}
	for _, text := range []struct{ key, value string }{{"license", c.License}, {"license-file", c.LicenseFile}, {"links", c.Links}} {
		if strings.ContainsFunc(text.value, control) {
			return badField(text.key, "holds a control character; take it out")
		}
		if len(text.value) > mostLicenseSize {
			return badField(text.key, "is longer than 1,024 bytes; shorten it")
		}
	}
	return nil
}

func badField(key, what string) error {
	return problem(ErrManifest, CodeManifest, "Cargo.toml: %q %s", "package."+key, what)
}

// checkKeywords: crates.io's rule for keywords; a category is a slug of its
// list, of which the form is checked here.
func (c *Crate) checkKeywords() error {
	if len(c.Keywords) > mostKeywords {
		return badField("keywords", "has more than 5 keywords; keep the best 5")
	}
	for _, k := range c.Keywords {
		if len(k) > mostKeywordSize || !isSlug(k, "_-+") {
			return badField("keywords", "holds "+quote(k)+"; a keyword has at most 20 characters, a letter or digit first, then letters, digits, '_', '-' and '+'")
		}
	}
	if len(c.Categories) > mostCategories {
		return badField("categories", "has more than 5 categories; keep the best 5")
	}
	for _, category := range c.Categories {
		if len(category) > 64 || !isSlug(category, "-:") {
			return badField("categories", "holds "+quote(category)+", which is not a category's slug such as development-tools::testing")
		}
	}
	return nil
}

// isSlug: ASCII letters, digits and the others, none of the others first.
func isSlug(s, others string) bool {
	for i := range len(s) {
		b := s[i]
		alphanumeric := 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
		if !alphanumeric && (i == 0 || strings.IndexByte(others, b) < 0) {
			return false
		}
	}
	return s != ""
}

// checkURLs: pages and search results link to them.
func (c *Crate) checkURLs() error {
	for _, link := range []struct{ key, value string }{
		{"homepage", c.Homepage}, {"documentation", c.Documentation}, {"repository", c.Repository},
	} {
		if link.value == "" {
			continue
		}
		u, err := url.Parse(link.value)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || len(link.value) > mostURLSize {
			return badField(link.key, "must be an http:// or https:// URL without a user name, at most 2,048 bytes long; correct it or leave it out")
		}
	}
	return nil
}

// checkRequirements refuses what no later version of a dependency could break
// knowingly: a bare *.
func (c *Crate) checkRequirements() error {
	for _, d := range c.Dependencies {
		if d.Req.String() == "*" {
			return badDependency(d.Name, "has the requirement \"*\"; write the versions that the crate works with, such as \"1.2\"")
		}
		for _, f := range d.Features {
			if !isFeatureName(f) {
				return badDependency(d.Name, "enables "+quote(f)+", which Cargo does not allow as the name of a feature")
			}
		}
	}
	return nil
}
