package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// The outcomes of a check. A warning is of something that works today.
const (
	checkOK   = "ok"
	checkWarn = "warn"
	checkFail = "FAIL"
)

// finding is the outcome of one check.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	// Mend is what to type or do, "" where nothing is to be mended.
	Mend string `json:"mend,omitzero"`
	// Files are what is kept of it.
	Files []string `json:"files,omitempty"`
}

// doctor looks at a set-up from outside and changes nothing.
type doctor struct {
	app       *app
	client    *client.Client
	folder    string
	cargoHome string
	findings  []finding
	// through are the project's registries that come through one that is known here.
	through []throughRegistry
}

func (d *doctor) ok(check, format string, args ...any) {
	d.findings = append(d.findings, finding{Check: check, Status: checkOK, Detail: fmt.Sprintf(format, args...)})
}

func (d *doctor) warn(check, mend, format string, args ...any) {
	d.findings = append(d.findings, finding{Check: check, Status: checkWarn, Detail: fmt.Sprintf(format, args...), Mend: mend})
}

func (d *doctor) fail(check, mend, format string, args ...any) {
	d.findings = append(d.findings, finding{Check: check, Status: checkFail, Detail: fmt.Sprintf(format, args...), Mend: mend})
}

func (a *app) doctorCommand() *cobra.Command {
	var server string
	c := &cobra.Command{
		Use: "doctor", Short: "Check this computer's set-up, and say what to type where it fails", Args: cobra.NoArgs,
		Long: "Check what stands between cargo and a registry on this computer: programs and PATH, cargo's configuration\nand this project's, keys and pins, the way to the registry, its certificates and log, clocks, a session and\nwhat you may do there. Nothing is changed. Exit status 1 when a check fails; warnings are of what works.\nWith --ready nothing is checked but whether one server can do its work now: for who supervises it.",
		RunE: func(c *cobra.Command, _ []string) error {
			if server != "" {
				return a.ready(c.Context(), server)
			}
			return a.doctor(c.Context())
		},
	}
	c.Flags().StringVar(&server, "ready", "", "ask only the server at this `URL` whether it is ready, as in http://127.0.0.1:8585; no proxy is used")
	return c
}

func (a *app) doctor(ctx context.Context) error {
	d, err := a.newDoctor()
	if err != nil {
		return err
	}
	d.checkPath()
	d.checkCargo(ctx)
	d.checkProvider()
	d.checkHome()
	d.checkNames()
	d.checkProject()
	pins, err := a.pinsToCheck(d.client.Home())
	if err != nil {
		return err
	}
	if len(pins) == 0 {
		d.fail("registry", "aln-registry login URL", "none is known yet")
	}
	for _, pin := range pins {
		d.checkRegistry(ctx, pin)
	}
	if ctx.Err() != nil { // what failed then failed for no reason of its own
		return context.Cause(ctx)
	}
	return d.report()
}

func (a *app) newDoctor() (*doctor, error) {
	d := &doctor{app: a}
	var err error
	if d.client, err = a.client(); err != nil {
		return nil, err
	}
	if d.cargoHome, err = cargoHome(); err != nil {
		return nil, err
	}
	d.folder, err = workingFolder()
	return d, err
}

// pinsToCheck are the registry that --registry names, or all that are known by today's name.
func (a *app) pinsToCheck(h client.Home) ([]client.Pin, error) {
	url, err := registryURL(a.registry)
	if err != nil {
		return nil, err
	}
	if url == "" {
		return h.CurrentPins()
	}
	pin, err := h.PinOf(url)
	return []client.Pin{pin}, err
}

// report prints what was found.
func (d *doctor) report() error {
	failed, warned := int64(0), int64(0)
	for _, f := range d.findings {
		switch f.Status {
		case checkFail:
			failed++
		case checkWarn:
			warned++
		}
	}
	if d.app.json {
		err := d.app.printJSON(struct {
			OK     bool      `json:"ok"`
			Checks []finding `json:"checks"`
		}{failed == 0, d.findings})
		if err == nil && failed > 0 {
			err = errSilent
		}
		return err
	}
	for _, f := range d.findings {
		fmt.Fprintf(d.app.out, "%s%*s %s: %s\n", d.app.paint(f.Status), len(checkFail)-len(f.Status), "", f.Check, tidy(f.Detail))
		if f.Mend != "" {
			fmt.Fprintln(d.app.out, "       ->", tidy(f.Mend))
		}
	}
	if failed == 0 {
		if warned > 0 {
			fmt.Fprintln(d.app.out, "All is well, but for "+counted(warned, "warning", "warnings")+".")
			return nil
		}
		fmt.Fprintln(d.app.out, "All is well.")
		return nil
	}
	fmt.Fprintln(d.app.out, counted(failed, "check failed", "checks failed")+"; what stands behind -> mends it.")
	return errSilent
}

// isTerminal reports whether v writes to a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// checkRegistry looks at one registry: the way there, who it is, who we are there.
func (d *doctor) checkRegistry(ctx context.Context, pin client.Pin) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	d.checkProxy(ctx, pin)
	d.checkCertificates(pin)
	r, err := d.client.Registry(pin)
	if err != nil {
		d.fail("key for "+pin.URL, "", "%v", err)
		return
	}
	bare := r.Bare() // what is wrong with a grant is told by itself
	answers, holds := d.checkLog(ctx, bare)
	if answers {
		d.checkClock(bare)
	}
	d.checkConflicts(pin)
	if holds && d.checkMembership(ctx, bare) {
		d.checkUpstreams(ctx, bare)
		d.checkGrant(ctx, r)
	}
}

// checkLog reports whether the pinned registry answers, and whether its log
// extends what was pinned and is not too old.
func (d *doctor) checkLog(ctx context.Context, r *client.Registry) (answers, holds bool) {
	check, url := "log of "+r.Pin().URL, r.Pin().URL
	mend := "trust nothing of it; ask its operator by another way, and show them `aln-registry log check --registry " + url + "`"
	opened, verdict, err := r.LogCheck(ctx)
	failed, _ := verdict.Failure()
	switch {
	case errors.Is(err, client.ErrWithheld): // what is said of the membership says what to do
		d.warn(check, "", "it was not judged: %v", err)
		return true, true
	case err != nil && unavailable(err):
		d.fail(check, "see that "+url+"/healthz answers in a browser here; a registry that moved is met by `aln-registry login NEW-URL`", "%v", err)
	case err != nil && unanswered(err):
		d.fail(check, "see in a browser what answers at "+url+": something between here and the registry, perhaps, or a registry of another version", "%v", err)
	case err != nil:
		d.fail(check, mend, "%v", err)
	case failed.Name == verify.CheckFreshness:
		d.fail(check, "look at this computer's clock ("+clockCommands+"); if it is right, ask the registry's operator by another way whether the log is larger", "%s", firstFailed(verdict))
	case !verdict.OK():
		d.fail(check, mend, "it does not hold against what is pinned, origin %s: %s", r.Pin().Origin, firstFailed(verdict))
	default:
		d.ok(check, "%s, signed by %s, as pinned; cosigned %s ago", entries(opened.Size), r.Pin().Origin, max(0, time.Duration(verdict.AgeSeconds)*time.Second))
		return true, true
	}
	return err == nil, false
}

// unavailable reports whether err is of a registry that gives no answer now, which
// says nothing of whether to trust it.
func unavailable(err error) bool {
	var refused *client.APIError
	if errors.As(err, &refused) {
		return refused.Status >= http.StatusInternalServerError || refused.Status == http.StatusTooManyRequests
	}
	return errors.Is(err, client.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// unanswered reports whether err is of an answer that does not even claim to be of a log.
func unanswered(err error) bool {
	var refused *client.APIError
	return errors.As(err, &refused) || errors.Is(err, client.ErrAnswer)
}

// checkConflicts shows what was kept of a log that contradicted itself.
func (d *doctor) checkConflicts(pin client.Pin) {
	check := "evidence about " + pin.URL
	kept, err := d.client.Home().Conflicts(pin)
	if err != nil {
		d.fail(check, "", "%v", err)
		return
	}
	if len(kept) == 0 {
		return
	}
	found := finding{Check: check, Status: checkWarn, Mend: "send these files to the registry's auditors and to other labs; remove them once it is explained"}
	for _, k := range kept {
		what := "it may have lost entries, or a mirror was behind"
		if k.Proven {
			found.Status, what = checkFail, "the log contradicts itself"
		}
		found.Detail += fmt.Sprintf("%s (%s), found at %s: %s; ", what, k.Kind, k.Found.Format(time.RFC3339), k.Path)
		found.Files = append(found.Files, k.Path)
	}
	found.Detail = strings.TrimSuffix(found.Detail, "; ")
	d.findings = append(d.findings, found)
}

// Beyond clockWarn the difference is worth a word, beyond clockFail no session can be had.
const (
	clockWarn = 30 * time.Second
	clockFail = 24 * time.Hour
)

// clockCommands set a computer's clock.
const clockCommands = "`timedatectl set-ntp true`, `w32tm /resync`"

func (d *doctor) checkClock(r *client.Registry) {
	check, offset := "clock", r.ClockOffset()
	const mend = "set this computer's clock (" + clockCommands + ")"
	switch {
	case offset.Abs() > clockFail:
		d.fail(check, mend, "the clock of %s is %s away from this computer's", r.Pin().URL, offset.Round(time.Minute))
	case offset.Abs() > clockWarn:
		d.warn(check, mend, "the clock of %s is %s away from this computer's; that is corrected for, save in judging the age of the log", r.Pin().URL, offset.Round(time.Second))
	default:
		d.ok(check, "it agrees with that of %s", r.Pin().URL)
	}
}

// checkMembership mints a session and finds the roles that we have; false where
// there is no session.
func (d *doctor) checkMembership(ctx context.Context, r *client.Registry) bool {
	url := r.Pin().URL
	identity, ok := r.Identity()
	if !ok {
		d.fail("identity", "aln-registry login "+url, "there is no key %q in %s", r.Pin().Identity, d.client.Home().Path())
		return false
	}
	_, err := r.NewSession(ctx, "read", time.Minute)
	var refused *client.APIError
	switch {
	case errors.As(err, &refused) && !unavailable(err):
		d.fail("session at "+url, "have an admin type: aln-registry member add "+string(identity.DID())+" --role publisher", "%s", refused.Detail)
		return false
	case err != nil && unavailable(err):
		d.fail("session at "+url, "ask the registry's operator, or again later", "%v", err)
		return false
	case err != nil:
		d.fail("session at "+url, "aln-registry login "+url, "%v", err)
		return false
	}
	d.ok("session at "+url, "minted for %s", identity.DID())
	d.checkDeclared(ctx, r)
	d.checkRoles(ctx, r, identity)
	return true
}
