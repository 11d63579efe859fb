package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/client/cargoconfig"
	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry/cargo"
)

// programTimeout bounds the programs that doctor asks for their version or setting.
const programTimeout = 20 * time.Second

func (d *doctor) checkPath() {
	self, err := os.Executable()
	if err != nil {
		d.fail("PATH", "", "%v", err)
		return
	}
	found, err := exec.LookPath("aln-registry")
	switch {
	case err != nil:
		d.warn("PATH", "put "+filepath.Dir(self)+" into PATH", "aln-registry is not found by its name alone; cargo does without")
	case !samePath(found, self):
		d.warn("PATH", "remove one of the two", "`aln-registry` is %s, this is %s", found, self)
	default:
		d.ok("PATH", "aln-registry %s is %s", version, self)
	}
}

// samePath reports whether two paths lead to one file.
func samePath(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// The minor releases of cargo 1 that matter: providers of credentials are stable
// since the first; before the second, CVE-2026-5223.
const (
	cargoProviders = 74
	cargoSymlinks  = 96
)

var cargoVersion = regexp.MustCompile(`^cargo (\d+)\.(\d+)\.\S+`)

func (d *doctor) checkCargo(ctx context.Context) {
	said, err := output(ctx, "cargo", "--version")
	if err != nil {
		d.fail("cargo", "install Rust: https://rustup.rs", "cargo --version: %v", err)
		return
	}
	match := cargoVersion.FindStringSubmatch(said)
	if match == nil {
		d.warn("cargo", "", "its version is not understood: %.80q", said)
		return
	}
	major, _ := strconv.Atoi(match[1])
	minor, _ := strconv.Atoi(match[2])
	switch {
	case major == 1 && minor < cargoProviders:
		d.fail("cargo", "rustup update stable", "%s asks no credential provider; 1.%d is the first that does", match[0], cargoProviders)
	case major == 1 && minor < cargoSymlinks:
		d.warn("cargo", "rustup update stable", "%s follows symbolic links in crates that it unpacks, so that one can write outside of its folder (CVE-2026-5223, mended in 1.%d); an aln-registry takes no crate with links, other registries may", match[0], cargoSymlinks)
	default:
		d.ok("cargo", "%s", match[0])
	}
}

// output is the first line that a program prints.
func output(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	raw, err := exec.CommandContext(ctx, program, args...).Output()
	line, _, _ := strings.Cut(string(raw), "\n")
	return strings.TrimSpace(line), err
}

func (d *doctor) checkProvider() {
	const check, mend = "credential provider", "aln-registry login URL"
	if os.Getenv("CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS") != "" {
		d.warn(check, "unset CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS", "that variable goes before cargo's configuration")
		return
	}
	p, err := cargoconfig.FindProvider(d.folder, d.cargoHome)
	self, _ := os.Executable()
	switch {
	case err != nil:
		d.fail(check, "mend that file by hand", "%v", err)
	case p.Program == "":
		d.fail(check, mend, "cargo, by its configuration in %s, does not ask this program for sessions", d.cargoHome)
	case filepath.Dir(p.Path) != filepath.Clean(d.cargoHome) && !isUsersCargoHome(filepath.Dir(p.Path)):
		d.fail(check, "remove global-credential-providers from "+p.Path+", then `aln-registry login URL`", "it is named in %s, where it breaks the build of everybody who has it elsewhere", p.Path)
	case !isFile(p.Program):
		d.fail(check, mend, "cargo runs %s, which is not there", p.Program)
	case !samePath(p.Program, self):
		d.warn(check, "aln-registry login URL (puts this one in its place)", "cargo runs %s, this is %s", p.Program, self)
	default:
		d.ok(check, "cargo runs %s", p.Program)
	}
}

// isUsersCargoHome reports whether folder is ~/.cargo: below the home folder cargo reads that
// file beside another CARGO_HOME's, and it is nobody else's.
func isUsersCargoHome(folder string) bool {
	user, err := os.UserHomeDir()
	return err == nil && folder == filepath.Join(user, ".cargo")
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// checkHome looks at the keys: there, readable, and nobody else's to read.
func (d *doctor) checkHome() {
	h := d.client.Home()
	if folder, err := durable.Open(h.Path()); err == nil {
		if exposed := (*durable.ExposedError)(nil); errors.As(durable.OwnerOnly(folder), &exposed) {
			d.fail("ALN_HOME", exposed.Mend, "others may look into %s: %s", h.Path(), exposed.How)
		}
		folder.Close()
	}
	if file := os.Getenv("ALN_KEY_FILE"); file != "" {
		identity, err := d.client.Identity("")
		if err != nil {
			d.fail("key", "", "ALN_KEY_FILE: %v", err)
			return
		}
		d.ok("key", "%s of ALN_KEY_FILE, %s", identity.DID(), file)
		return
	}
	identities, err := h.Identities()
	switch {
	case err != nil:
		d.fail("key", "", "%v", err)
	case len(identities) == 0:
		d.fail("key", "aln-registry login URL", "there is none in %s", h.Path())
	}
	for _, identity := range identities {
		d.ok("key", "%s in %s", identity.DID(), identity.Path)
	}
}

// checkNames sees that no registry has two names, in whichever files.
func (d *doctor) checkNames() {
	const check = "names of registries"
	named, err := cargoconfig.Named(d.folder, d.cargoHome)
	if err != nil {
		d.fail(check, "mend that file by hand", "%v", err)
		return
	}
	for _, names := range cargoconfig.Twins(named) {
		var said []string
		for _, name := range names {
			said = append(said, fmt.Sprintf("%q in %s", name, named[name].Path))
		}
		d.fail(check, "remove all but one of these names",
			"cargo takes no two names for one index, and %s has %s", named[names[0]].Text(), strings.Join(said, ", "))
	}
}

// checkProject holds the project's registries against those that are known.
func (d *doctor) checkProject() {
	project, ok := cargoconfig.FindProject(d.folder)
	if !ok {
		return
	}
	named, err := cargoconfig.Registries(filepath.Join(project, ".cargo"))
	if err != nil {
		d.fail("project", "mend that file by hand", "%v", err)
		return
	}
	if len(named) == 0 {
		d.warn("project", "aln-registry login URL", "%s names no registry", filepath.Join(project, ".cargo", "config.toml"))
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		d.checkNamed(name, named[name])
	}
	d.checkCratesIO()
}

// checkCratesIO says where the project's crates of crates.io come from.
func (d *doctor) checkCratesIO() {
	const check = "crates of crates.io"
	now, err := cargoconfig.Replacement(d.folder, d.cargoHome)
	if err != nil {
		d.fail(check, "mend that file by hand", "%v", err)
		return
	}
	from := now.Text()
	if from == "" {
		if n := directCrates(d.folder); n > 0 {
			d.warn(check, "aln-registry login URL --replace-crates-io (nothing to do where that is meant)", "cargo asks crates.io itself for %s of this project's Cargo.lock, past every registry and its rules", counted(int64(n), "crate", "crates"))
		}
		return
	}
	pins, err := d.client.Home().Pins()
	if err != nil {
		d.fail(check, "", "%v", err)
		return
	}
	for _, pin := range pins {
		switch base := baseOf(pin.IndexURL); {
		case client.CratesIOURL(base) != from:
		case base != pin.URL:
			d.warn(check, "aln-registry login "+pin.URL+" --replace-crates-io", "%s takes them through %s, and that registry has moved to %s", now.Path, from, pin.URL)
			return
		default:
			d.ok(check, "through %s, as %s says", from, now.Path)
			return
		}
	}
	if base, ok := strings.CutSuffix(from, "/crates-io/index/"); ok {
		d.fail(check, "aln-registry login "+strings.TrimPrefix(base, "sparse+"), "%s takes them through %s, and nobody has logged in there on this computer", now.Path, from)
		return
	}
	d.ok(check, "from %s, as %s says", from, now.Path)
}

// directCrates is how many crates of crates.io the lock of the project around folder has.
func directCrates(folder string) (n int) {
	project, ok := cargoconfig.FindProject(folder)
	if !ok {
		return 0
	}
	raw, err := readRegular(filepath.Join(project, lockName), cargo.MaxLockBytes)
	if err != nil {
		return 0
	}
	packages, err := cargo.ParseLock(raw)
	if err != nil { // cargo says what is wrong with it
		return 0
	}
	for _, p := range packages {
		if client.PlaceOf(p.Source, nil).Kind == client.PlaceCratesIO {
			n++
		}
	}
	return n
}

func (d *doctor) checkNamed(name, index string) {
	check := "project's registry " + name
	pin, err := d.client.Home().PinOf(index)
	switch {
	case errors.Is(err, client.ErrNotPinned) && d.throughKnown(check, index): // is told
	case errors.Is(err, client.ErrNotPinned):
		d.warn(check, "aln-registry login "+baseOf(index), "%s is not known here (nothing to do where it is another make of registry)", index)
		return
	case err != nil:
		d.warn(check, "", "%s: %v", index, err)
		return
	case pin.IndexURL != client.IndexURL(pin.URL):
		d.warn(check, "aln-registry login "+pin.URL, "%s has moved to %s", index, pin.URL)
	default:
		d.ok(check, "%s", index)
	}
	provider, found, err := cargoconfig.Lookup(d.folder, d.cargoHome, "registries", name, "credential-provider")
	if err == nil && found {
		d.fail(check, "remove credential-provider of [registries."+name+"] from "+provider.Path, "cargo asks the provider %v for it, not this program", provider.Value)
	}
	if variable := tokenVariable(name); os.Getenv(variable) != "" {
		d.warn(check, "unset "+variable, "%s is set, but this program is asked first", variable)
	}
}

// checkProxy says which way requests to the registry go, and whether cargo's go the same.
func (d *doctor) checkProxy(ctx context.Context, pin client.Pin) {
	check := "way to " + pin.URL
	own, err := transport()
	var request *http.Request
	if err == nil {
		request, err = http.NewRequestWithContext(ctx, http.MethodGet, pin.URL, nil)
	}
	if err != nil {
		d.fail(check, "", "%v", err)
		return
	}
	proxy, err := own.Proxy(request)
	switch {
	case err != nil:
		d.fail(check, "", "%v", err)
	case proxy != nil:
		d.ok(check, "by the proxy %s", proxy.Host)
	case d.gitProxy(ctx) && strings.HasPrefix(pin.URL, "https://"):
		d.warn(check, "write that proxy into "+filepath.Join(d.cargoHome, "config.toml")+" too: [http] proxy = …", "directly, but cargo goes by the proxy that git's http.proxy names, which this program does not read")
	default:
		d.ok(check, "directly")
	}
}

// gitProxy reports whether cargo takes a proxy from git's configuration.
func (d *doctor) gitProxy(ctx context.Context) bool {
	if setting, err := cargoSetting("CARGO_HTTP_PROXY", "http", "proxy"); err != nil || setting.Text() != "" {
		return false
	}
	named, err := output(ctx, "git", "config", "--global", "--get", "http.proxy")
	return err == nil && named != ""
}

// checkCertificates sees that cargo trusts the private authority that we trust.
func (d *doctor) checkCertificates(pin client.Pin) {
	if len(pin.CA) == 0 {
		return
	}
	check, login, ours := "certificates of "+pin.URL, "aln-registry login "+pin.URL, d.client.Home().BundlePath()
	setting, err := cargoSetting("CARGO_HTTP_CAINFO", "http", "cainfo")
	if err != nil {
		d.fail(check, "mend that file by hand", "%v", err)
		return
	}
	file := setting.Text()
	if file == "" && runtime.GOOS != "linux" {
		d.warn(check, trustInSystem(ours), "cargo trusts what this system trusts; whether that is the registry's authority is not looked at")
		return
	}
	bundle, err := os.ReadFile(file)
	switch {
	case file == "":
		d.fail(check, login, "cargo is not told of the registry's authority (http.cainfo)")
	case errors.Is(err, fs.ErrNotExist) && file == ours:
		d.fail(check, login, "%s, which cargo is to trust, is not there", file)
	case err != nil:
		d.fail(check, "", "http.cainfo in %s: %v", setting.Path, err)
	case !holdsAll(bundle, pin.CA):
		d.fail(check, "append the certificates in "+ours+" to "+file, "cargo trusts %s, as %s says, and the registry's authority is not in it", file, setting.Path)
	case file == ours && d.stale(bundle):
		d.warn(check, login, "%s is older than the certificates that this computer trusts", file)
	default:
		d.ok(check, "cargo trusts their authority, by %s", file)
	}
}

// stale reports whether the file for cargo is not what would be written today.
func (d *doctor) stale(bundle []byte) bool {
	system, err := systemCertificates()
	if err != nil || len(system) == 0 { // login would not write it anew
		return false
	}
	today, err := d.client.Home().Bundle(system)
	return err == nil && !bytes.Equal(today, bundle)
}

// holdsAll reports whether every certificate of ca is in bundle (both PEM).
func holdsAll(bundle, ca []byte) bool {
	var have [][]byte
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		have = append(have, block.Bytes)
	}
	for block, rest := pem.Decode(ca); block != nil; block, rest = pem.Decode(rest) {
		if !slices.ContainsFunc(have, func(der []byte) bool { return bytes.Equal(der, block.Bytes) }) {
			return false
		}
	}
	return true
}

// checkDeclared sees that the settings in force name the URL that we ask at: no
// other is logged in to, though the sessions of who is logged in go on.
func (d *doctor) checkDeclared(ctx context.Context, r *client.Registry) {
	pin := r.Pin()
	check := "settings of " + pin.URL
	in, err := r.Settings(ctx)
	switch {
	case err != nil:
		d.fail(check, "", "%v", err)
	case !slices.Contains(in.Settings.IndexURLs, pin.IndexURL):
		mend := "have an admin type: aln-registry settings set --add-index-url " + pin.IndexURL
		if len(in.Settings.IndexURLs) > 0 {
			mend += "; or, if it has moved: aln-registry login " + baseOf(in.Settings.IndexURLs[0])
		}
		d.fail(check, mend, "they do not name %s; login is refused", pin.IndexURL)
	default:
		d.ok(check, "they name %s", pin.IndexURL)
	}
}

// baseOf is the URL of the registry whose index URL is given.
func baseOf(index string) string {
	return strings.TrimSuffix(strings.TrimPrefix(index, "sparse+"), "/index/")
}

// checkRoles says what the member may do.
func (d *doctor) checkRoles(ctx context.Context, r *client.Registry, identity client.Identity) {
	const check = "what you may do"
	members, err := r.Members(ctx)
	if err != nil {
		d.fail(check, "", "%v", err)
		return
	}
	i := slices.IndexFunc(members, func(m client.Member) bool { return m.DID == identity.DID() })
	if i < 0 {
		d.ok(check, "read")
		return
	}
	roles := cmp.Or(strings.Join(members[i].Roles, ", "), "none")
	if members[i].Admin { // no role: the settings say who is one
		roles += "; an admin"
	}
	if !slices.Contains(members[i].Roles, "publisher") {
		d.ok(check, "read, and publish what you own; roles: %s", roles)
		return
	}
	d.ok(check, "read, publish; roles: %s", roles)
}
