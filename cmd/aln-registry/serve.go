package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/server"
	"phoenix-lab.org/aln-registry/web"
)

// serveFlags are serve's settings.
type serveFlags struct {
	engineFlags
	upstreams                     upstreamFlags
	listen, publicURL, did, admin string
	anonymousRead                 bool
	cacheMB                       int64
	tlsCert, tlsKey               string
	metricsListen                 string
	drainDelay                    time.Duration
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use: "serve", Short: "Run the registry", Args: cobra.NoArgs,
		Long: "Run the registry. No flag is needed: the first start makes the registry's keys, its log and an\noperator's identity, and says where they are. Every flag has an environment variable, ALN_ and the\nflag's name in upper case, as in ALN_PUBLIC_URL.",
		RunE: func(c *cobra.Command, _ []string) error { return a.serve(c.Context(), f) },
	}
	c.Flags().StringVar(&f.listen, "listen", "127.0.0.1:8585", "address and port to listen on")
	f.register(c)
	f.upstreams.register(c)
	c.Flags().StringVar(&f.publicURL, "public-url", "", "URL by which clients reach the registry (default http:// or https:// and the address listened on)")
	c.Flags().StringVar(&f.did, "did", "", "did:web of the registry, at its first start only (default: a new did:key)")
	c.Flags().StringVar(&f.admin, "admin", "", "`DID` of the first admin, at the first start only; needed then with --db or --blobs (default: the identity of this computer)")
	c.Flags().StringVar(&f.tlsCert, "tls-cert", "", "certificate chain in PEM: serve https with HTTP/2; read again when it changes, and on SIGHUP")
	c.Flags().StringVar(&f.tlsKey, "tls-key", "", "the certificate's private key in PEM, not readable by everybody")
	c.Flags().DurationVar(&f.drainDelay, "drain-delay", 0, "after SIGTERM go on taking requests for so long, while /readyz already says no")
	c.Flags().StringVar(&f.metricsListen, "metrics-listen", "", "address and port to answer /metrics, /healthz and /readyz on, over plain http and to everybody (default: none)")
	c.Flags().BoolVar(&f.anonymousRead, "anonymous-read", false, "let everybody read, through /public/index/")
	c.Flags().Int64Var(&f.cacheMB, "cache-mb", registry.DefaultCacheBytes>>20, "memory for index files, members and versions, in MiB (1 to 65536)")
	return c
}

// garbagePercent is how much garbage may lie about before it is collected, of what
// is live: little is, and collecting it less often takes a sixth of the CPU time of an
// index GET away (docs/PERFORMANCE.md). GOGC in the environment goes first.
const garbagePercent = 400

// memoryAim is what the process takes in all before garbage is collected more
// often than that, beside a part for the caches: full ones are much that is live.
const memoryAim = 128 << 20

// tuneGarbage sets both; GOGC and GOMEMLIMIT in the environment go first.
func tuneGarbage(cacheBytes int64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryAim + 4*cacheBytes)
	}
}

func (a *app) serve(ctx context.Context, f serveFlags) error {
	if f.cacheMB < 1 || f.cacheMB > 1<<16 {
		return usageError{fmt.Errorf("--cache-mb %d is not from 1 to %d", f.cacheMB, 1<<16)}
	}
	if _, err := f.upstreams.settings(); err != nil {
		return err
	}
	tuneGarbage(f.cacheMB << 20)
	lines := server.NewLogWriter(a.err)
	defer lines.Close()
	log := a.loggerTo(lines)
	defer logLibraries(log)()
	certificate, err := f.certificate(log)
	if err != nil {
		return err
	}
	listener, err := listen(ctx, "--listen", f.listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	scraped, err := f.listenForScraper(ctx, log)
	if err != nil {
		return err
	}
	defer scraped.Close()
	if f.publicURL == "" {
		if f.publicURL, err = defaultURL(listener.Addr(), certificate != nil); err != nil {
			return err
		}
	}
	if f.publicURL, err = client.ParseURL(f.publicURL); err != nil {
		return usageError{fmt.Errorf("--public-url: %w", err)}
	}
	if err := f.checkAdmin(); err != nil {
		return err
	}
	if server.CollidingPath(f.publicURL) {
		return usageError{fmt.Errorf("--public-url %s: its path begins like one of the registry's own; take another, such as /aln", f.publicURL)}
	}
	up := f.answer(ctx, listener, scraped, certificate, log)
	defer up.stop()
	return a.work(ctx, f, up)
}

// work opens the registry and lets up answer for it.
func (a *app) work(ctx context.Context, f serveFlags, up *answering) error {
	log := up.log
	node, err := f.open(ctx, opening{purpose: toServe, did: did.DID(f.did), log: log})
	if err != nil {
		return err
	}
	defer node.close()
	metrics := server.NewMetrics(server.MetricsConfig{Version: version, Certificate: up.certificate, Room: node.room})
	inventory, look := node.inventory(), &lookout{} // of the store itself
	node.config.Blobs, node.config.Batch = metrics.Blobs(node.config.Blobs), metrics.Batch
	node.config.PublicURL, node.config.AnonymousRead, node.config.CacheBytes = f.publicURL, f.anonymousRead, f.cacheMB<<20
	node.config.KnownUpstream, node.config.Ending = look.known, up.ending
	if node.config.Catalog.Shared() {
		node.config.Replica = replicaName()
	}
	operator, err := a.setUp(ctx, node, did.DID(f.admin))
	if err != nil {
		return node.explained(ctx, err)
	}
	r, err := registry.Open(ctx, node.config)
	if err != nil {
		return node.explained(ctx, err)
	}
	defer r.Close()
	upstreams, err := f.upstreams.open(r, inventory, up.ending)
	if err != nil {
		return err
	}
	defer upstreams.close()
	look.at.Store(upstreams)
	if err := node.markStarted(); err != nil {
		return err
	}
	greeting := greetingOf(node, r, operator)
	greeting.CratesIO, greeting.Upstreams = upstreams.greeted()
	greeting.Offline = f.upstreams.offline
	if err := a.greet(greeting); err != nil {
		return err
	}
	if operator != nil {
		go a.introduce(ctx, r, log)
	}
	reloadOnHangup(ctx, up.certificate)
	defer up.stop() // before what it answers from is closed
	pages := web.New(web.Config{Registry: r, Log: log, Clock: time.Now, Version: version, Upstreams: upstreams.forPages})
	up.open(server.Config{Registry: r, Log: log, Clock: time.Now, Pages: pages, Draining: ctx.Done(), Metrics: metrics, Upstreams: upstreams}, r.Failed())
	return f.mendable(up.wait())
}

// replicaName names this process among the servers of a registry, for people.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "server"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}

// checkAdmin refuses a first admin whom nobody could log in as.
func (f serveFlags) checkAdmin() error {
	if f.admin == "" {
		return nil
	}
	d, err := did.Parse(f.admin)
	if err != nil {
		return usageError{fmt.Errorf("--admin: %w", err)}
	}
	if d.Method() != "key" {
		return usageError{fmt.Errorf("--admin %s: the first admin is a did:key; one with a did:web is made an admin later, with `aln-registry settings set --add-admin`", d)}
	}
	return nil
}

// introduce pins the new registry in the operator's home, so that commands such
// as `member add` work at once. Where the public URL does not lead here yet, the
// operator logs in later.
func (a *app) introduce(ctx context.Context, r *registry.Registry, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := a.client()
	if err == nil {
		_, err = c.Login(ctx, r.PublicURL, a.identity)
	}
	if err != nil && ctx.Err() == nil {
		log.Warn("the operator has to log in by hand", "type", "aln-registry login "+r.PublicURL, "error", err)
	}
}

// freshLog is the size of a log in which nothing has happened yet.
const freshLog = 2

// greeting is what serve says at its start.
type greeting struct {
	Version  string `json:"version"`
	URL      string `json:"url"`
	IndexURL string `json:"index_url"`
	// Data is the data folder, "" where nothing is in one. Catalog and Blobs are
	// where those are, without what is secret in it.
	Data    string  `json:"data"`
	Catalog string  `json:"catalog"`
	Blobs   string  `json:"blobs"`
	Origin  did.DID `json:"origin"`
	KeyFile string  `json:"key_file"`
	Size    int64   `json:"size"`
	// CratesIO is where crates of crates.io are taken from, "" for nowhere; Upstreams are the other
	// registries. Offline: none of them is asked for anything.
	CratesIO  string             `json:"crates_io"`
	Upstreams []greetingUpstream `json:"upstreams"`
	Offline   bool               `json:"offline"`
	// Operator and OperatorKey are given at the very first start only.
	Operator    did.DID `json:"operator,omitzero"`
	OperatorKey string  `json:"operator_key,omitzero"`
	// Admin is whose login the log waits for, where it has one entry alone.
	Admin   did.DID `json:"admin,omitzero"`
	Warning string  `json:"warning,omitzero"`
}

// greetingUpstream is a named upstream, and its index without what is secret.
type greetingUpstream struct {
	Name  string `json:"name"`
	Index string `json:"index"`
}

func greetingOf(n *node, r *registry.Registry, operator *client.Identity) greeting {
	g := greeting{
		Version: version, URL: r.PublicURL, IndexURL: r.IndexURL(), Data: n.folder, Catalog: n.catalogName, Blobs: n.blobsName,
		Origin: r.Origin(), KeyFile: n.keyPath, Size: r.Size(),
	}
	if operator != nil {
		g.Operator, g.OperatorKey = operator.DID(), operator.Path
	}
	if g.Size < freshLog {
		g.Admin = r.Settings().Admins[0]
	}
	if declared := r.Settings().IndexURLs; !slices.Contains(declared, g.IndexURL) {
		g.Warning = fmt.Sprintf("the log declares this registry as %s; login at %s, and crates that name %s, are refused. Start it with --public-url of one that the log names, have an admin type `aln-registry settings set --add-index-url %s`, and start it here again",
			strings.Join(declared, ", "), g.URL, g.IndexURL, g.IndexURL)
	}
	return g
}

// greet says in a few lines what runs and what to type next.
func (a *app) greet(g greeting) error {
	if a.json {
		return a.printJSON(g)
	}
	fmt.Fprintf(a.out, "aln-registry %s serves %s\n", g.Version, g.URL)
	var rows [][]string
	if g.Data != "" {
		rows = append(rows, []string{"  data folder", g.Data})
	}
	if filepath.Dir(g.Catalog) != g.Data || filepath.Dir(g.Blobs) != g.Data {
		rows = append(rows, []string{"  catalog", g.Catalog}, []string{"  blobs", g.Blobs})
	}
	rows = append(rows, []string{"  registry", string(g.Origin)}, []string{"  its keys", g.KeyFile}, []string{"  log", entries(g.Size)}, []string{"  crates.io", g.takenFrom(g.CratesIO)})
	for _, u := range g.Upstreams {
		rows = append(rows, []string{"  upstream", u.Name + ", " + g.takenFrom(u.Index)})
	}
	if g.Operator != "" {
		rows = append(rows, []string{"  operator", string(g.Operator) + " (admin)"}, []string{"  its key", g.OperatorKey})
	}
	a.table(rows)
	if g.Warning != "" {
		fmt.Fprintln(a.out, "warning:", g.Warning)
	}
	if g.Size < freshLog {
		fmt.Fprintf(a.out, "The log waits for its first admin: who has the key of %s types  aln-registry login %s\n", g.Admin, g.URL)
	}
	if g.Size == freshLog {
		fmt.Fprintln(a.out, "Whoever loses the registry's key file cannot continue this log, and whoever takes it can forge it;")
		fmt.Fprintln(a.out, "without the operator's key nobody can admit members. Back up both, and keep both secret.")
		fmt.Fprintf(a.out, "Next, in a crate's folder, type:  %s login %s\n", programName(), g.URL)
	}
	return nil
}

// takenFrom says how crates come from an index.
func (g greeting) takenFrom(index string) string {
	switch {
	case index == "":
		return "not taken (--upstream none)"
	case g.Offline:
		return "what is held of " + index + ", which is never asked (--offline)"
	}
	return "from " + index + ", when somebody asks for it"
}

// programName is what to type to run this program: its bare name if PATH finds it.
func programName() string {
	path, err := os.Executable()
	if err != nil {
		return "aln-registry"
	}
	if found, err := exec.LookPath("aln-registry"); err == nil {
		if resolved, err := filepath.EvalSymlinks(found); err == nil && resolved == path {
			return "aln-registry"
		}
	}
	return path
}
