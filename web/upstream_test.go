package web

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// thereLine is a line of an upstream's index file.
func thereLine(name, version, bytes, more string) string {
	return fmt.Sprintf(`{"name":%q,"vers":%q,"deps":[],"cksum":"%x","features":{},"yanked":false%s}`+"\n", name, version, sha256.Sum256([]byte(bytes)), more)
}

// proxying has the lab's pages tell of crates.io, and of one called lab that does not answer.
func (l *lab) proxying(change ...func(*UpstreamsNow)) {
	now := UpstreamsNow{CacheLimit: 5 << 20, All: []Upstream{
		{Name: "crates-io", Source: "crates-io", Index: "https://index.crates.io/"},
		{Name: "bonn", Source: "upstream/bonn", Index: "https://bonn.example/index/", Down: true, Trouble: "bonn: its answer <stopped>", TroubleAt: time.Unix(1_700_000_000, 0)},
	}}
	for _, c := range change {
		c(&now)
	}
	l.pages = New(Config{Registry: l.registry, Log: l.registry.Log, Clock: l.now, Version: "v0", Upstreams: func() UpstreamsNow { return now }})
}

// sees has the registry see an index file at crates.io.
func (l *lab) sees(name string, lines ...string) {
	l.t.Helper()
	if _, err := l.registry.Import(context.Background(), "crates-io", name, []byte(strings.Join(lines, ""))); err != nil {
		l.t.Fatal(err)
	}
}

// fillUpstream makes secret_thing known, of which one version was changed, one altered, one dropped, and one is held.
func (l *lab) fillUpstream() {
	l.t.Helper()
	first := thereLine("secret_thing", "1.0.0", "a", `,"pubtime":"2026-01-02T03:04:05Z"`) + thereLine("secret_thing", "1.1.0", "b", "") + thereLine("secret_thing", "1.2.0-rc.1", "c", "")
	l.sees("secret_thing", first)
	l.sees("secret_thing", thereLine("secret_thing", "1.1.0", "other", ""), strings.Replace(thereLine("secret_thing", "1.2.0-rc.1", "c", ""), `[]`, `[{"name":"evil","req":"*"}]`, 1), thereLine("secret_thing", "1.3.0", "d", ""))
	blob := catalog.UpstreamBlob{CID: storage.CIDOf([]byte("d")), Upstream: "crates-io", Name: "secret_thing", Version: "1.3.0", Size: 1536, Fetched: l.now(), Used: l.now()}
	if err := l.registry.Hold(context.Background(), []catalog.UpstreamBlob{blob}); err != nil {
		l.t.Fatal(err)
	}
	alarm := catalog.UpstreamAlarm{Upstream: "crates-io", Name: "secret_thing", Version: "1.1.0", Kind: "changed", Detail: "it <b>changed</b> \u202ethere", At: time.Unix(1_800_000_000, 0)}
	if err := l.registry.Catalog.AddUpstreamAlarm(context.Background(), alarm, 1000); err != nil {
		l.t.Fatal(err)
	}
}

const seenPath = "/upstreams/crates-io/crates/secret_thing"

func TestAMemberSeesWhatIsKnownOfUpstreams(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	l.get("/upstreams", token).want(t, 200, "There are none: this registry has only what is published here")
	l.proxying()
	l.get("/upstreams/crates-io", token).want(t, 200, "Nobody asked for any yet")
	l.fillUpstream()
	l.get("/", token).want(t, 200, `href="/upstreams"`, "--replace-crates-io")
	page := l.get("/upstreams", token).want(t, 200, "http://127.0.0.1:8585/crates-io/index/", "http://127.0.0.1:8585/upstream/bonn/index/",
		"does not answer", "1 crate, 1.5 KiB", "The bound is 5.0 MiB", "Nothing is kept by name")
	for _, text := range []string{"stopped", "Last trouble", "Names that others have too", "alarms"} { // are for auditors
		if strings.Contains(page.Body.String(), text) {
			t.Errorf("a member reads %q", text)
		}
	}
	l.get("/upstreams/crates-io", token).want(t, 200, `<span class="version">1.3.0</span>`, "4 versions", seenPath)
	for _, path := range []string{"/upstreams/crates-io", seenPath} { // what nobody has looked into yet is not denied to anybody
		if strings.Contains(l.get(path, token).Body.String(), "denied</span>") {
			t.Errorf("%s says that something is denied", path)
		}
	}
	l.get("/upstreams/crates-io?q=Secret-", token).want(t, 200, seenPath)
	l.get("/upstreams/crates-io?q=thing", token).want(t, 200, "None that is known begins so")
	l.get("/upstreams/crates-io?q=%00", token).want(t, 200, "None that is known begins so")
	l.get("/search?q=secret_", token).want(t, 200, "Crates of other registries", seenPath)
	l.get("/upstreams/crates-io/crates/Secret-Thing", token).want(t, 302)

	last := l.registry.Size() - 1
	seen := l.get(seenPath, token).want(t, 200, "What crates-io said otherwise later", fmt.Sprintf("%x", sha256.Sum256([]byte("other"))), "to other dependencies or features of the same bytes", "held",
		`1.0.0</span> <span class="badge warn">dropped</span> <span class="fine">not listed any more since `, `1.0.0 <span class="badge warn">dropped</span></th>`,
		`1.1.0</span> <span class="badge warn">changed</span> <span class="fine">named with other bytes since `, `1.1.0 <span class="badge warn">changed</span></th>`,
		`1.2.0-rc.1</span> <span class="badge warn">altered</span> <span class="fine">listed with other dependencies or features since `, `1.2.0-rc.1 <span class="badge warn">altered</span></th>`,
		`datetime="2026-01-02T03:04:05Z"`, "not said", "aln-registry why secret_thing --source crates-io", fmt.Sprintf(`href="/record/%d"`, last), fmt.Sprintf(`href="/record/%d/snapshot"`, last-1))
	if n := strings.Count(seen.Body.String(), `<span class="badge">held</span>`); n != 1 {
		t.Errorf("%d versions are held", n)
	}
	l.get(fmt.Sprintf("/record/%d", last), token).want(t, 200, "The registry says here what it saw", seenPath, "import", "Snapshot")
	file := l.get(fmt.Sprintf("/record/%d/snapshot", last-1), token).want(t, 200, `"vers":"1.0.0"`)
	if h := file.Header(); h.Get("Content-Type") != "application/octet-stream" || h.Get("Content-Disposition") != fmt.Sprintf(`attachment; filename="secret_thing-index-%d.jsonl"`, last-1) || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("a snapshot is sent as %v", h)
	}
	l.get("/record/1/snapshot", token).want(t, 404)
}

// Pages of upstreams tell nothing to who would be told nothing by the index, and not whether there is anything.
func TestUpstreamPagesHideWhatTheIndexHides(t *testing.T) {
	l := newLab(t)
	l.proxying()
	l.fillUpstream()
	l.admitBound()
	last := l.registry.Size()
	for ; ; last-- {
		stored := must(l.registry.RecordAt(t.Context(), knowing(l.member), last-1))
		if stored.Record.Type() == record.TypeImport {
			break
		}
	}
	paths := map[string]string{
		seenPath: "/upstreams/crates-io/crates/other_thing", fmt.Sprintf("/record/%d", last-1): "/record/999", fmt.Sprintf("/record/%d/snapshot", last-1): "/record/999/snapshot",
		"/upstreams/crates-io/crates/Secret-Thing": "/upstreams/crates-io/crates/Other-Thing", "/upstreams/crates-io/alarms": "/upstreams/none/alarms",
	}
	for who, token := range map[string]string{"nobody": "", "a stranger": l.forge(l.stranger, "read"), "a guest": l.forge(l.guest, "read"), "offshore": l.forge(l.offshore, "read"), "without scope": l.forge(l.member, "chat")} {
		for path, missing := range paths {
			if who == "a guest" && strings.HasPrefix(path, "/record/") {
				continue // how long the log is everybody is told
			}
			there, gone := l.get(path, token), l.get(missing, token)
			if there.Code == 200 || there.Code != gone.Code || there.Body.String() != gone.Body.String() || there.Header().Get("Location") != "" {
				t.Errorf("%s can tell %s (%d) from %s (%d)", who, path, there.Code, missing, gone.Code)
			}
		}
		for _, path := range []string{"/upstreams", "/upstreams/crates-io", "/upstreams/crates-io?q=s", "/search?q=sec", "/log", "/", "/artifacts/crate"} {
			if r := l.get(path, token); strings.Contains(r.Body.String(), "secret") && !strings.HasPrefix(path, "/search") || strings.Contains(r.Body.String(), "secret_thing") {
				t.Errorf("%s reads of it on %s: %s", who, path, r)
			}
		}
	}
	for who, key := range map[string]did.PrivateKey{"a guest": l.guest, "offshore": l.offshore} { // of them all no sum either
		page := l.get("/upstreams", l.forge(key, "read")).want(t, 200, "crates-io").Body.String()
		for _, text := range []string{"Held", "1.5 KiB", "Room", "Kept"} {
			if strings.Contains(page, text) {
				t.Errorf("%s reads %q", who, text)
			}
		}
	}
	// Whoever may know of a part is told of that alone, and of no record, snapshot or number that tells of the rest.
	some := must(did.GenerateEd25519(zeros{9}))
	l.submit(l.admin, record.MemberSubject(didOf(some)), &record.Member{Roles: []string{"builder"}, Tier: particle.TierGuest, StakeholderAddrs: []string{}})
	l.grant(some, func(g *particle.EnvGrant) {
		g.OffshoreFlag, g.AllowedCrates = true, []string{fmt.Sprintf("%x", sha256.Sum256([]byte("d")))}
	})
	token := l.forge(some, "read")
	page := l.get(seenPath, token).want(t, 200, "1.3.0", "not shown to you").Body.String()
	for _, text := range []string{"1.0.0", "1.1.0", "rc.1", "changed", "dropped", "/record/", "snapshot"} {
		if strings.Contains(page, text) {
			t.Errorf("whoever may know of one version reads %q", text)
		}
	}
	l.get("/upstreams/crates-io", token).want(t, 200, "1 version<")
	l.get(fmt.Sprintf("/record/%d/snapshot", last-1), token).want(t, 404)
	if !strings.Contains(l.get("/log", token).Body.String(), "not shown to you") {
		t.Error("the log tells of the import")
	}
}

// Where everybody reads what is published here, other registries' crates are for members still.
func TestUpstreamPagesAreForMembersWhereEverybodyReads(t *testing.T) {
	l := newLab(t, anonymous)
	l.proxying()
	l.fill()
	l.fillUpstream()
	l.sees("secret-crate", thereLine("secret-crate", "1.0.0", "x", ""))
	for _, path := range []string{"/upstreams", "/upstreams/crates-io", "/upstreams/none", seenPath, "/upstreams/crates-io/crates/none", "/upstreams/crates-io/alarms"} {
		if r := l.get(path, "").want(t, 401); strings.Contains(r.Body.String(), "secret") {
			t.Errorf("nobody reads %s", r)
		}
	}
	for path, text := range map[string]string{"/search?q=secret_": "secret_thing", "/artifacts/crate/secret-crate": "too, which is", "/": "/upstreams"} {
		if strings.Contains(l.get(path, "").want(t, 200).Body.String(), text) {
			t.Errorf("%s says %q to nobody", path, text)
		}
	}
}

// What became private after it was seen is nobody's to see any more, on no page.
func TestPrivateNamesHaveNoPageUpstream(t *testing.T) {
	l := newLab(t)
	l.proxying()
	l.fillUpstream()
	token := l.session(l.member, "read")
	l.get(seenPath, token).want(t, 200)
	settings := l.registry.Settings().Registry
	settings.PrivateNames = []string{"Secret-"}
	l.submit(l.admin, record.RegistrySubject(), &settings)
	l.get(seenPath, token).want(t, 404)
	for _, path := range []string{"/upstreams/crates-io", "/upstreams/crates-io?q=secret_", "/search?q=secret_"} {
		if strings.Contains(l.get(path, token).Body.String(), "secret_thing") {
			t.Errorf("%s tells of a private name", path)
		}
	}
}

func TestRulesMarkVersionsOfUpstreams(t *testing.T) {
	l := newLab(t)
	l.proxying()
	l.fillUpstream()
	l.submit(l.admin, must(record.RuleSubject("no-13")), &record.Quarantine{QuarantineRule: particle.QuarantineRule{
		Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "bad",
		Match: []particle.RuleMatch{{Names: []string{"secret-thing"}, Versions: "=1.3.0", Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}},
	}})
	page := l.get(seenPath, l.session(l.member, "read")).want(t, 200, "1.3.0 <span class=\"badge warn\">denied</span>").Body.String()
	if n := strings.Count(page, "denied</span>"); n != 1 {
		t.Errorf("%d versions are denied", n)
	}
}

// What auditors watch: alarms, troubles, and names that are published here and elsewhere.
func TestAuditorsSeeAlarmsAndNamesThatOthersHaveToo(t *testing.T) {
	l := newLab(t)
	l.proxying()
	l.fill()
	l.fillUpstream()
	auditor := l.admitAs("auditor")
	read, audit := l.session(auditor, "read"), l.session(auditor, "audit")
	l.registry.Note(registry.Event{Asker: didOf(l.member), What: "crate/ours@0.1.0", Rule: registry.RuleKnownUpstream, RuleID: "crates-io", Outcome: registry.OutcomeAccepted})
	l.registry.Note(registry.Event{Asker: didOf(l.member), What: "crate/else", Rule: "quarantine", Outcome: registry.OutcomeDenied})
	l.get("/upstreams/crates-io/alarms", "").want(t, 401, "<code>--scope audit</code> in its place", `name="session"`)
	l.get("/upstreams/crates-io/alarms", read).want(t, 403, "the alarms of upstreams need a session with the scope audit", `name="session"`, "aln-registry token --scope audit --registry ")
	l.get("/me", read).want(t, 200, "aln-registry token --scope audit --registry ")
	if said := l.get("/me", audit).want(t, 200, "Sign out").Body.String(); strings.Contains(said, "--scope audit") {
		t.Errorf("who has such a session is told how to get one:\n%s", said)
	}
	l.get("/upstreams", audit).want(t, 200, "its answer &lt;stopped&gt;", "none since this server started", "crate/ours@0.1.0", "/upstreams/bonn/alarms", "Names that others have too",
		`<span class="badge warn">changed</span> <bdi>secret_thing 1.1.0</bdi>`, "is the newest that nobody has looked into", "None that nobody has looked into")
	l.get("/upstreams/crates-io/alarms", audit).want(t, 200, "it &lt;b&gt;changed&lt;/b&gt; \ufffdthere", seenPath, "changed")
	all, err := l.registry.Catalog.UpstreamAlarms(t.Context(), "crates-io", 1<<60, 1)
	if err == nil {
		_, _, err = l.registry.Catalog.SeeUpstreamAlarm(t.Context(), "crates-io", all[0].ID, catalog.AlarmSeen{By: "did:key:z1", Why: "a <b>mirror</b>", At: l.now()})
	}
	if err != nil {
		t.Fatal(err)
	}
	if said := l.get("/upstreams", audit).want(t, 200).Body.String(); strings.Contains(said, "secret_thing") {
		t.Errorf("the list warns of an alarm that was looked into:\n%s", said)
	}
	l.get("/upstreams/crates-io/alarms", audit).want(t, 200, "All on this page were looked into", "a &lt;b&gt;mirror&lt;/b&gt;", "is as it was", "\ufffdthere")
	l.get("/upstreams/bonn/alarms", audit).want(t, 200, "There are none")
	l.get("/upstreams/none/alarms", audit).want(t, 404)
	l.get("/upstreams/crates-io/alarms?before=0", audit).want(t, 404)
	page := l.get("/audit?rule=known-upstream", audit).want(t, 200, "crate/ours@0.1.0", "Only entries with the rule")
	if strings.Contains(page.Body.String(), "crate/else") {
		t.Error("the audit trail of one rule tells of another")
	}
	for i := range perPage + 1 {
		a := catalog.UpstreamAlarm{Upstream: "crates-io", Name: "many", Kind: "snapshot", Detail: fmt.Sprint("number ", i), At: l.now()}
		if err := l.registry.Catalog.AddUpstreamAlarm(t.Context(), a, 1000); err != nil {
			t.Fatal(err)
		}
	}
	first := l.get("/upstreams/crates-io/alarms", audit).want(t, 200, "number 50", "Older").Body.String()
	older := first[strings.Index(first, `href="/upstreams/crates-io/alarms?before=`)+6:]
	l.get(older[:strings.Index(older, `"`)], audit).want(t, 200, "number 0", "secret_thing", "← Newest")

	// All were taken away: what is held of them still takes room.
	l.proxying(func(now *UpstreamsNow) { now.All = nil })
	l.get("/upstreams", audit).want(t, 200, "There are none now", "1.5 KiB are held of all together", "Nothing is kept by name")
}

// Whoever looks at a crate whose name another registry has too is told so, on both pages.
func TestANameThatTwoRegistriesHaveIsMarked(t *testing.T) {
	l := newLab(t)
	l.proxying()
	l.fill()
	token := l.session(l.member, "read")
	const ours, theirs = "/artifacts/crate/secret-crate", "/upstreams/crates-io/crates/Secret_Crate"
	if strings.Contains(l.get(ours, token).want(t, 200).Body.String(), "too, which is") {
		t.Error("a name is marked that nobody else has")
	}
	l.sees("Secret_Crate", thereLine("Secret_Crate", "1.0.0", "x", ""))
	l.get(ours, token).want(t, 200, theirs, "has a crate named", "means that one")
	l.get(theirs, token).want(t, 200, ours, "is published here too")
	if l.admitBound(); strings.Contains(l.get(theirs, l.forge(l.offshore, "read")).want(t, 404).Body.String(), "secret") {
		t.Error("a name is told")
	}
}

func TestLocksAreListed(t *testing.T) {
	l := newLab(t)
	l.proxying(func(now *UpstreamsNow) { now.Offline, now.CacheLimit = true, 0 })
	l.fillUpstream()
	token := l.session(l.member, "read")
	asker := knowing(l.member)
	asker.Roles, asker.Scopes = []string{"publisher"}, []string{particle.ScopePublish}
	if err := l.registry.Pin(t.Context(), asker, "ci/main", []storage.CID{storage.CIDOf([]byte("d")), storage.CIDOf([]byte("e"))}); err != nil {
		t.Fatal(err)
	}
	gone := registry.Lack{Upstream: "crates-io", Name: "gone-by", Version: "1.0.0", Why: "absent"}
	if err := l.registry.Lack(t.Context(), asker, "ci/main", []registry.Lack{gone}); err != nil {
		t.Fatal(err)
	}
	for i := range perPage {
		if err := l.registry.Pin(t.Context(), asker, fmt.Sprintf("many/%02d", i), []storage.CID{storage.CIDOf([]byte("d"))}); err != nil {
			t.Fatal(err)
		}
	}
	page := l.get("/upstreams", token).want(t, 200, "ci/main", "1 of 3", "<bdi>gone-by 1.0.0</bdi>: absent", string(didOf(l.member)), "never asked", "asks none of them", "Nothing bounds that").Body.String()
	if strings.Contains(page, "many/49") {
		t.Error("a page has more than it should")
	}
	next := page[strings.Index(page, `href="/upstreams?after=`)+6:]
	l.get(next[:strings.Index(next, `#`)], token).want(t, 200, "many/49")
	l.get("/upstreams?after=%00", token).want(t, 404)
}

// Long lists are turned page by page, and what is hidden makes no page shorter.
func TestCratesOfAnUpstreamAreTurnedPageByPage(t *testing.T) {
	l := newLab(t)
	l.proxying()
	for i := range perPage + 3 {
		name := fmt.Sprintf("Many-%03d", i)
		l.sees(name, thereLine(name, "1.0.0", name, ""))
	}
	l.sees("other", thereLine("other", "1.0.0", "x", ""))
	token := l.session(l.member, "read")
	page := l.get("/upstreams/crates-io?q=many", token).want(t, 200, "Many-000", "Many-049").Body.String()
	if strings.Contains(page, "Many-050") || strings.Contains(page, ">other ") {
		t.Error("a page has more than it should")
	}
	next := page[strings.Index(page, `href="/upstreams/crates-io?after=`)+6:]
	next = strings.ReplaceAll(next[:strings.Index(next, `"`)], "&amp;", "&")
	rest := l.get(next, token).want(t, 200, "Many-050", "Many-052").Body.String()
	if strings.Contains(rest, "Next →") || strings.Contains(rest, ">other ") {
		t.Error("the last page has a next one, or what does not begin so")
	}
	if !strings.Contains(l.get("/upstreams/crates-io", token).want(t, 200).Body.String(), "Next →") {
		t.Error("a long list has one page")
	}
}

// Without upstreams nothing speaks of them, and what is known from before stays readable.
func TestARegistryWithoutUpstreamsHasNoWordOfThem(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	if strings.Contains(l.get("/", token).Body.String(), "pstream") {
		t.Error("the front page speaks of upstreams")
	}
	l.get("/upstreams", token).want(t, 200, "There are none")
	l.get("/upstreams/crates-io", token).want(t, 404)
	l.fillUpstream()
	l.get("/upstreams/crates-io", token).want(t, 200, "not asked any more", seenPath)
	l.get(seenPath, token).want(t, 200, "takes nothing from crates-io any more")
}

// A session that ends while a snapshot is read gets nothing of it.
func TestASnapshotIsNotSentToWhoMayReadItNoMore(t *testing.T) {
	var during func()
	l := newLab(t, func(c *registry.Config) { c.Blobs = &slowStore{c.Blobs, &during} })
	l.proxying()
	l.fillUpstream()
	token := l.session(l.member, "read")
	path := fmt.Sprintf("/record/%d/snapshot", l.registry.Size()-1)
	l.get(path, token).want(t, 200)
	during = func() {
		during = nil
		l.submit(l.admin, record.MemberSubject(didOf(l.member)), &record.Member{Roles: []string{}, Tier: particle.TierGuest, StakeholderAddrs: []string{}})
	}
	r := l.do(httptest.NewRequest(http.MethodGet, path, nil), token)
	if r.Code == 200 || strings.Contains(r.Body.String(), "secret_thing") {
		t.Errorf("%s", r)
	}
}

// slowStore calls during while a blob is opened.
type slowStore struct {
	storage.Blobs
	during *func()
}

func (s *slowStore) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	if f := *s.during; f != nil {
		f()
	}
	return s.Blobs.Open(ctx, id)
}
