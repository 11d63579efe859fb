package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
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
	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/server"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
	"phoenix-lab.org/aln-registry/web"
)

// serveFlags are serve's settings.
type serveFlags struct {
	listen, data, publicURL, did string
	anonymousRead                bool
	cacheMB                      int64
	tlsCert, tlsKey              string
	metricsListen                string
	drainDelay                   time.Duration
}

// Names inside the data folder.
const (
	catalogFile = "catalog.db"
	storeFolder = "store"
	spoolFolder = "spool"
	startedFile = "keys/log-started"
	keyFile     = "keys/registry.jwk"
	serveLock   = "serve.lock"
)

const defaultDataName = "data"

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use: "serve", Short: "Run the registry", Args: cobra.NoArgs,
		Long: "Run the registry. No flag is needed: the first start makes the registry's keys, its log and an\noperator's identity, and says where they are. Every flag has an environment variable, ALN_ and the\nflag's name in upper case, as in ALN_PUBLIC_URL.",
		RunE: func(c *cobra.Command, _ []string) error { return a.serve(c.Context(), f) },
	}
	c.Flags().StringVar(&f.listen, "listen", "127.0.0.1:8585", "address and port to listen on")
	c.Flags().StringVar(&f.data, "data", defaultDataName, "folder for keys, catalog and blobs")
	c.Flags().StringVar(&f.publicURL, "public-url", "", "URL by which clients reach the registry (default http:// or https:// and the address listened on)")
	c.Flags().StringVar(&f.did, "did", "", "did:web of the registry, at its first start only (default: a new did:key)")
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
	tuneGarbage(f.cacheMB << 20)
	lines := server.NewLogWriter(a.err)
	defer lines.Close()
	log := a.loggerTo(lines)
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
	if server.CollidingPath(f.publicURL) {
		return usageError{fmt.Errorf("--public-url %s: its path begins like one of the registry's own; take another, such as /aln", f.publicURL)}
	}
	folder, lock, err := lockFolder(f.data)
	if err != nil {
		return err
	}
	defer lock.Close()
	node, err := openNode(ctx, folder, catalogFile, f.did, log)
	if err != nil {
		return rebuildable(err, folder)
	}
	defer node.close()
	metrics := server.NewMetrics(server.MetricsConfig{Version: version, Certificate: certificate, Room: func() (uint64, uint64, error) { return disk.Room(folder) }})
	node.config.Blobs, node.config.Batch = metrics.Blobs(node.config.Blobs), metrics.Batch
	node.config.PublicURL, node.config.AnonymousRead, node.config.CacheBytes = f.publicURL, f.anonymousRead, f.cacheMB<<20
	operator, err := a.setUp(ctx, node)
	if err != nil {
		return rebuildable(err, folder)
	}
	r, err := registry.Open(ctx, node.config)
	if err != nil {
		return rebuildable(err, folder)
	}
	defer r.Close()
	if err := a.greet(greetingOf(node, r, operator)); err != nil {
		return err
	}
	if operator != nil {
		go a.introduce(ctx, r, log)
	}
	reloadOnHangup(ctx, certificate)
	pages := web.New(web.Config{Registry: r, Log: log, Clock: time.Now, Version: version})
	config := server.Config{Registry: r, Log: log, Clock: time.Now, Pages: pages, Draining: ctx.Done(), Metrics: metrics}
	handler := server.New(config)
	defer scraped.serve(ctx, config)()
	return server.Listening{Handler: handler, Log: log, Certificate: certificate, Fatal: r.Failed(), DrainDelay: f.drainDelay}.Serve(ctx, listener)
}

// rebuildable adds to an error that a rebuild mends what to type for it, wherever
// that is typed.
func rebuildable(err error, folder string) error {
	if errors.Is(err, registry.ErrBehind) || errors.Is(err, catalog.ErrDamaged) {
		return fmt.Errorf("%w: type `aln-registry rebuild --data %s`", err, folder)
	}
	return err
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

// node is an open data folder.
type node struct {
	folder string
	config registry.Config
	store  *disk.Store
}

// openNode opens the data folder, which the caller has locked, making what is
// missing, with the catalog in the file of that name.
func openNode(ctx context.Context, folder, catalogName, wantDID string, log *slog.Logger) (*node, error) {
	n := &node{folder: folder}
	if err := n.open(ctx, catalogName, did.DID(wantDID), log); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// lockFolder makes the data folder and its keys folder, and locks it.
func lockFolder(data string) (folder string, lock *os.File, err error) {
	if folder, err = filepath.Abs(data); err != nil {
		return "", nil, err
	}
	for _, dir := range []string{folder, filepath.Join(folder, filepath.Dir(keyFile))} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return "", nil, err
		}
	}
	lock, err = durable.Lock(filepath.Join(folder, serveLock))
	if errors.Is(err, durable.ErrLocked) {
		return "", nil, fmt.Errorf("another aln-registry is working in the data folder %s; stop it first, or give --data another folder", folder)
	}
	return folder, lock, err
}

func (n *node) open(ctx context.Context, catalogName string, want did.DID, log *slog.Logger) error {
	if want != "" {
		if _, err := did.Parse(string(want)); err != nil {
			return usageError{fmt.Errorf("--did: %w", err)}
		}
	}
	if err := n.refuseLostKeys(); err != nil {
		return err
	}
	keys, err := registry.OpenKeys(filepath.Join(n.folder, keyFile), want, rand.Reader)
	if err != nil {
		return err
	}
	if n.store, err = disk.Open(filepath.Join(n.folder, storeFolder)); err != nil {
		return err
	}
	spool := filepath.Join(n.folder, spoolFolder)
	if err := errors.Join(os.RemoveAll(spool), durable.MkdirAll(spool, 0o700)); err != nil {
		return err
	}
	db, err := catalog.OpenSQLite(ctx, filepath.Join(n.folder, catalogName))
	if err != nil {
		return err
	}
	n.config = registry.Config{
		Catalog: db, Blobs: n.store, Keys: keys, Spool: spool, Limits: cargo.DefaultLimits(), Clock: time.Now, Rand: rand.Reader, Log: log,
	}
	return nil
}

// refuseLostKeys keeps a folder whose key file is gone from getting a new one:
// the log could never be continued with it.
func (n *node) refuseLostKeys() error {
	path := filepath.Join(n.folder, keyFile)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, other := range []string{catalogFile, filepath.Join(storeFolder, "log")} {
		if _, err := os.Stat(filepath.Join(n.folder, other)); err == nil {
			return fmt.Errorf("the registry's key file %s is missing, but the folder holds a log that only it can continue; put it back from your backup", path)
		}
	}
	return nil
}

func (n *node) close() {
	if n.config.Catalog != nil {
		n.config.Catalog.Close()
	}
	if n.store != nil {
		n.store.Close()
	}
}

// setUp writes the log's first two entries at the first start, with the
// operator's identity as first admin; it returns that identity then.
func (a *app) setUp(ctx context.Context, n *node) (*client.Identity, error) {
	needed, err := registry.NeedsGenesis(ctx, n.config)
	if err != nil || !needed {
		return nil, errors.Join(err, n.markStarted(err))
	}
	if _, err := os.Stat(filepath.Join(n.folder, startedFile)); err == nil {
		return nil, fmt.Errorf("the log of %s is missing: its keys are here, and %s says that it was begun, but %s is empty; a second log under one name would be a fork, so restore %s from your backup",
			n.config.Keys.DID(), startedFile, storeFolder, storeFolder)
	}
	h, err := home()
	if err != nil {
		return nil, err
	}
	operator, err := h.Identity(a.identity)
	if errors.Is(err, client.ErrNoIdentity) && (a.identity == "" || a.identity == client.DefaultIdentity) {
		operator, err = h.CreateIdentity("", rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	err = registry.Genesis(ctx, n.config, operator.Signer())
	return &operator, errors.Join(err, n.markStarted(err))
}

// markStarted notes beside the keys, where nothing went wrong, that they have
// begun a log: should the log get lost, they must not begin another.
func (n *node) markStarted(failed error) error {
	if failed != nil {
		return nil
	}
	err := durable.CreateFile(filepath.Join(n.folder, startedFile), []byte("The keys in this folder have begun a log; they cannot begin another.\n"), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// freshLog is the size of a log in which nothing has happened yet.
const freshLog = 2

// greeting is what serve says at its start.
type greeting struct {
	Version  string  `json:"version"`
	URL      string  `json:"url"`
	IndexURL string  `json:"index_url"`
	Data     string  `json:"data"`
	Origin   did.DID `json:"origin"`
	KeyFile  string  `json:"key_file"`
	Size     int64   `json:"size"`
	// Operator and OperatorKey are given at the very first start only.
	Operator    did.DID `json:"operator,omitzero"`
	OperatorKey string  `json:"operator_key,omitzero"`
	Warning     string  `json:"warning,omitzero"`
}

func greetingOf(n *node, r *registry.Registry, operator *client.Identity) greeting {
	g := greeting{
		Version: version, URL: r.PublicURL, IndexURL: r.IndexURL(), Data: n.folder, Origin: r.Origin(),
		KeyFile: filepath.Join(n.folder, keyFile), Size: r.Size(),
	}
	if operator != nil {
		g.Operator, g.OperatorKey = operator.DID(), operator.Path
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
	rows := [][]string{
		{"  data folder", g.Data},
		{"  registry", string(g.Origin)},
		{"  its keys", g.KeyFile},
		{"  log", entries(g.Size)},
	}
	if g.Operator != "" {
		rows = append(rows, []string{"  operator", string(g.Operator) + " (admin)"}, []string{"  its key", g.OperatorKey})
	}
	a.table(rows)
	if g.Warning != "" {
		fmt.Fprintln(a.out, "warning:", g.Warning)
	}
	if g.Size == freshLog {
		fmt.Fprintln(a.out, "Whoever loses the registry's key file cannot continue this log, and whoever takes it can forge it;")
		fmt.Fprintln(a.out, "without the operator's key nobody can admit members. Back up both, and keep both secret.")
		fmt.Fprintf(a.out, "Next, in a crate's folder, type:  %s login %s\n", programName(), g.URL)
	}
	return nil
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
