package server

// Values of headers that many answers share; a header is set to one of them
// without an allocation. Nobody changes them: appending to one makes a copy.
var (
	varyAsker       = []string{"Authorization"}
	varyAskerCoding = []string{"Authorization, Accept-Encoding"}
	privateNoCache  = []string{"private, no-cache"}
	noCache         = []string{"no-cache"}
	notBuffered     = []string{"no"}
	gzipCoding      = []string{"gzip"}
	nosniff         = []string{"nosniff"}
	plainText       = []string{"text/plain; charset=utf-8"}
)
