package catalog

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// An address of a database may hold a password. It is read here before pgx reads it, by a
// grammar so narrow that there is one reading: what is shown of an address, and which
// host is asked for, rests on knowing where its password ends.

// errBadURL: the database's URL cannot be read. The URL is not part of the
// error: what cannot be read may have its password anywhere.
var errBadURL = errors.New("the database's URL is not understood; it has the form postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full, " +
	"its password comes from PGPASSWORD or from a file that PGPASSFILE names")

// Why an address is refused. None says a part of it.
const (
	notPostgres   = "it does not begin with postgres://"
	noHost        = "it names no host"
	oddCharacters = "it holds a space, a # or what cannot be printed, or a % that begins no %XX; write %XX for them"
	strayAt       = "an @ stands in it only once, before the host: write %40 for any other, or better leave the password to PGPASSFILE"
	strayMark     = "a :, ;, & or = stands where its user, host or database is named: write %XX for it, or better leave the password to PGPASSFILE"
	badQuery      = "what follows the ? is not NAME=VALUE with an & between: write %3B, %26 and %3D for ;, & and = in a value, or better leave the password to PGPASSFILE"
	oddName       = "it has a password under a name that is not one of PostgreSQL's; leave it to PGPASSFILE"
	afterPassword = "beside a password among the parameters stands one that does not belong there, or may be a part of it: write %26 for an & in it, or better leave it to PGPASSFILE"
	twoReadings   = "it can be read in two ways: write %XX for what is not a letter or digit in a name, or better leave the password to PGPASSFILE"
)

// parameter is one of those after the question mark.
type parameter struct {
	name, value string
	typed       string // with the =
}

// address is one that was read. What is typed is as it was given.
type address struct {
	scheme, user, hosts, path string // typed; the path with its slash
	password                  string
	parameters                []parameter
}

// Parameters by what may be known of them.
var (
	// secretParameters hold a password.
	secretParameters = []string{"password", "sslpassword"}
	// placeParameters say whom to ask; they are shown.
	placeParameters = []string{"host", "port", "user", "dbname", "database"}
	// shownParameters hold nothing that is secret.
	shownParameters = []string{
		"sslmode", "sslcert", "sslkey", "sslrootcert", "sslcertmode", "sslnegotiation", "sslsni", "channel_binding", "require_auth",
		"min_protocol_version", "max_protocol_version", "target_session_attrs", "connect_timeout", "application_name", "search_path",
	}
)

// plainValue is a value in which nothing is hidden: no key pasted into the place of its
// file, no second parameter.
var plainValue = regexp.MustCompile(`^[\pL\pN_.,:/\\~"$ +-]*$`)

// oneHost is a host's name, folder (with %2F) or address, and its port.
var oneHost = regexp.MustCompile(`^(\[[0-9A-Za-z:.%]+\]|[^\[\]:]*)(:[0-9]*)?$`)

// CheckAddress refuses an address of a database that is none, or that two programs could
// read differently. Its errors hold no part of the address.
func CheckAddress(text string) error {
	_, err := readAddress(text)
	return err
}

// ShowAddress is what may be shown of an address of a database, to be typed again: no
// password, no parameter that may hold one or that is not known. Where the address cannot be
// read, that is nothing.
func ShowAddress(text string) string {
	a, err := readAddress(text)
	if err != nil {
		return "URL"
	}
	return a.String()
}

func readAddress(text string) (a address, err error) {
	var rest string
	a.scheme, rest, _ = strings.Cut(text, "://")
	if a.scheme != "postgres" && a.scheme != "postgresql" {
		return a, errors.New(notPostgres)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == '#' || r == 0x7f }) {
		return a, errors.New(oddCharacters)
	}
	before, query, _ := strings.Cut(rest, "?")
	authority, path, slash := strings.Cut(before, "/")
	if strings.Count(authority, "@") > 1 || strings.Contains(path, "@") || strings.Contains(query, "@") {
		return a, errors.New(strayAt)
	}
	login, hosts, found := strings.Cut(authority, "@")
	if !found {
		login, hosts = "", authority
	}
	user, password, _ := strings.Cut(login, ":")
	a.user, a.hosts = user, hosts
	if slash {
		a.path = "/" + path
	}
	if a.password, err = decoded(password); err != nil {
		return a, err
	}
	if err := a.checkNames(); err != nil {
		return a, err
	}
	return a, a.readQuery(query)
}

// decoded is text without its percent-encoding, as pgx decodes it.
func decoded(text string) (string, error) {
	plain, err := url.PathUnescape(text)
	if err != nil || strings.ContainsRune(plain, 0) {
		return "", errors.New(oddCharacters)
	}
	return plain, nil
}

// checkNames looks at what is shown of an address whatever it is.
func (a *address) checkNames() error {
	for _, typed := range []string{a.user, a.hosts, a.path} {
		if strings.ContainsAny(typed, "&=;") {
			return errors.New(strayMark)
		}
		if _, err := decoded(typed); err != nil {
			return err
		}
	}
	if user, _ := decoded(a.user); strings.Contains(user, ":") { // a password that was encoded together with its user
		return errors.New(strayMark)
	}
	for host := range strings.SplitSeq(a.hosts, ",") {
		if !oneHost.MatchString(host) {
			return errors.New(strayMark)
		}
	}
	return nil
}

func (a *address) readQuery(query string) error {
	if _, err := url.ParseQuery(query); err != nil {
		return errors.New(badQuery)
	}
	for typed := range strings.SplitSeq(strings.TrimSuffix(query, "&"), "&") {
		if query == "" {
			break
		}
		if strings.Count(typed, "=") != 1 {
			return errors.New(badQuery)
		}
		name, value, _ := strings.Cut(typed, "=")
		p := parameter{typed: typed}
		var err error
		if p.name, err = decoded(name); err != nil {
			return err
		}
		if p.value, err = decoded(value); err != nil {
			return err
		}
		a.parameters = append(a.parameters, p)
	}
	return a.checkParameters()
}

func (a *address) checkParameters() error {
	secret := slices.ContainsFunc(a.parameters, func(p parameter) bool { return slices.Contains(secretParameters, p.name) })
	behind, host := false, a.hosts
	for _, p := range a.parameters {
		lower := strings.ToLower(p.name)
		named := slices.Contains(placeParameters, p.name)
		switch {
		case slices.Contains(secretParameters, p.name):
			behind = true
			continue
		case strings.Contains(lower, "pass") && p.name != "passfile", strings.Contains(lower, "pwd"), strings.Contains(lower, "secret"):
			return errors.New(oddName) // the server would be sent it as a setting, and tell it
		case strings.Contains(strings.ToLower(p.value), "password="): // of which the & and = were encoded, too
			return errors.New(badQuery)
		case secret && !slices.Contains(shownParameters, p.name) && (behind || !named):
			return errors.New(afterPassword)
		case p.name == "user" && strings.Contains(p.value, ":"):
			return errors.New(strayMark)
		case p.name == "host":
			host += p.value
		}
	}
	if host == "" {
		return errors.New(noHost)
	}
	return nil
}

// String is what may be shown of it. Of what stands behind a password among the
// parameters nothing is: it may be a part of one that holds an &.
func (a address) String() string {
	var shown []string
	for _, p := range a.parameters {
		if slices.Contains(secretParameters, p.name) {
			break
		}
		name, _, _ := strings.Cut(p.typed, "=")
		if (slices.Contains(shownParameters, name) || slices.Contains(placeParameters, name)) && plainValue.MatchString(p.value) {
			shown = append(shown, p.typed)
		}
	}
	text := a.scheme + "://"
	if a.user != "" {
		text += a.user + "@"
	}
	text += a.hosts + a.path
	if len(shown) > 0 {
		text += "?" + strings.Join(shown, "&")
	}
	return text
}

// given reports whether a parameter of that name overrides what stands before them.
func (a address) given(name string) bool {
	return slices.ContainsFunc(a.parameters, func(p parameter) bool { return p.name == name })
}

// parse is a as pgx reads it, which finds in it what is found here.
func (a address) parse(text string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%w%s", errBadURL, a.reason(err))
	}
	user, _ := decoded(a.user)
	first, _, _ := strings.Cut(a.hosts, ",")
	host, _ := decoded(strings.Trim(strings.TrimSuffix(first, oneHost.FindStringSubmatch(first)[2]), "[]"))
	for name, read := range map[string][2]string{"user": {user, config.User}, "password": {a.password, config.Password}, "host": {host, config.Host}} {
		if read[0] != "" && read[0] != read[1] && !a.given(name) {
			return nil, fmt.Errorf("%w: %s", errBadURL, twoReadings)
		}
	}
	return config, nil
}

// reason is what pgx has to say of a, where it says the same of what may be shown of it.
func (a address) reason(err error) string {
	_, again := pgx.ParseConfig(a.String())
	if reason := parseReason(err); reason == parseReason(again) {
		return reason
	}
	return ""
}

// parseReason is an error of pgx's parser without the text that was parsed.
func parseReason(err error) string {
	var parse *pgconn.ParseConfigError
	if !errors.As(err, &parse) {
		return ""
	}
	_, reason, found := strings.Cut(parse.Error(), "`: ")
	if !found {
		return ""
	}
	return ": " + reason
}
