package registry

// Check is one kind of finding of Fsck.
type Check struct {
	// Code names it for ever.
	Code string
	// Means says what was found.
	Means string
	// Do mends it.
	Do string
	// Repairs: Fsck itself does, if it is told to.
	Repairs bool
}

// Codes of findings.
const (
	codeCatalogDamaged  = "catalog-damaged"
	codeCatalogBehind   = "catalog-behind"
	codeCatalogHead     = "catalog-head"
	codePublished       = "published-row"
	codeEntryRow        = "entry-row"
	codeLogHash         = "log-hash"
	codeState           = "state-row"
	codeLineMissing     = "crate-line-missing"
	codeLine            = "crate-line"
	codeVersionMissing  = "version-cid-missing"
	codeVersion         = "version-cid"
	codeObjectMissing   = "entry-object-missing"
	codeObject          = "entry-object"
	codeLogLost         = "log-lost"
	codeLogAbsent       = "log-absent"
	codeLogUnproved     = "log-unproved"
	codeLogUnreadable   = "log-unreadable"
	codeLogStray        = "log-stray"
	codeNoteMissing     = "checkpoint-missing"
	codeNote            = "checkpoint"
	codeFork            = "fork"
	codeVoid            = "entry-void"
	codeWithheld        = "crate-withheld"
	codeRecordMissing   = "record-missing"
	codeRecord          = "record-corrupt"
	codeAttachedMissing = "attachment-missing"
	codeAttached        = "attachment-corrupt"
	codeBytesMissing    = "artifact-missing"
	codeBytes           = "artifact-corrupt"
	codeHeldMissing     = "held-missing"
	codeHeld            = "held-corrupt"
	codeStray           = "stray"
	codeUnreadable      = "unreadable"
)

const (
	doRebuild  = "stop the servers and type `aln-registry rebuild`: the catalog is derived anew from blob storage"
	doRepair   = "type `aln-registry fsck --repair`"
	doAside    = "find out who wrote it; where it is damage, move the object aside and type `aln-registry fsck --repair`"
	doLetGo    = doRepair + ": it is not held any more then, and fetched anew when somebody asks for it; where no upstream is asked, copy the blob from a backup"
	doRestore  = "copy it from a backup of this log; the bytes are proved by their name, so any backup will do"
	doEvidence = "write nothing, keep both, and find out which one people saw (`aln-registry log check` of several of them)"
)

// Checks are all kinds of findings, in the order in which they matter.
var Checks = []Check{
	{codeFork, "a checkpoint that this log has signed is of other entries than those that are here", doEvidence, false},
	{codeLogLost, "an entry is neither in the catalog nor in blob storage", "copy the object from a backup of this log, then look again", false},
	{codeLogAbsent, "nothing of this log is in blob storage, though its keys have begun it, or the catalog has its entries", "correct --blobs and --db; where they are right it is lost: restore blob storage from a backup, and begin no new log", false},
	{codeLogUnproved, "the entries do not hash to what was published, so nothing is repaired", "mend what else is found, then look again; where nothing else is, restore the log from a backup", false},
	{codeLogUnreadable, "an entry, or its record, is of a form that this release does not know", "look with the release that wrote it; where none did, restore the log from a backup", false},
	{codeEntryRow, "the catalog's row of an entry is missing, or is not what the log says", doRebuild, false},
	{codeObjectMissing, "the object of an entry is not in blob storage; the catalog's row hashes into the published root", doRepair, true},
	{codeObject, "the object of an entry has other bytes than the published root was made of", doAside, false},
	{codeLogStray, "among the log's objects lies something that is none", "find out who wrote it, and move it aside: a start refuses it", false},
	{codeNoteMissing, "the checkpoint object of what is published is not in blob storage", doRepair, true},
	{codeNote, "a checkpoint object is not one that this log has signed", doAside, false},
	{codePublished, "what the catalog says is published is not a checkpoint of this log and its size", doRebuild, false},
	{codeCatalogDamaged, "the database finds itself damaged, or cannot be read", doRebuild + "; then look at the disk", false},
	{codeCatalogBehind, "blob storage has more of the log than the catalog: an older catalog was put back, or it is gone", doRebuild, false},
	{codeCatalogHead, "the catalog's head, or what hangs on it, is not where its entries end", doRebuild, false},
	{codeLogHash, "a stored hash of the log is missing, or is not that of its entries", doRebuild, false},
	{codeState, "a row of state is missing, or is not what the log derives", doRebuild, false},
	{codeLineMissing, "the catalog lacks the index line of a crate", doRepair + ", and restart the servers", true},
	{codeLine, "the index line of a crate is not what its bytes and the log derive", doRebuild, false},
	{codeVersionMissing, "the catalog does not find a version by its bytes", doRepair, true},
	{codeVersion, "a row that finds versions by their bytes is not what the log derives", doRebuild, false},
	{codeRecordMissing, "the record of an entry is not in blob storage", doRestore, false},
	{codeRecord, "the stored record of an entry does not hash to its name", "move the blob aside, then copy it from a backup of this log", false},
	{codeAttachedMissing, "a document, grant or intent that a record brings is not in blob storage", doRestore, false},
	{codeAttached, "a stored document, grant or intent does not hash to its name", "move the blob aside, then copy it from a backup of this log", false},
	{codeBytesMissing, "the bytes of a version are not in blob storage", "have an owner publish the same bytes again, which only puts them back (a crate: `aln-registry publish FILE.crate --kind crate --name NAME --version VERSION`); or copy the blob from a backup", false},
	{codeBytes, "the stored bytes of a version do not hash to their name; nobody is given them", "have an owner publish the same bytes again, which replaces them (a crate: `aln-registry publish FILE.crate --kind crate --name NAME --version VERSION`); or move the blob aside and copy it from a backup", false},
	{codeHeldMissing, "a crate of another registry is said to be held, and its bytes are not in blob storage", doLetGo, true},
	{codeHeld, "the stored bytes of a crate of another registry do not hash to their name; nobody is given them", doLetGo, true},
	{codeVoid, "an entry does not follow the rules: it changes nothing, and nobody should have entered it", "find out who wrote it; it stays in the log", false},
	{codeWithheld, "a published crate does not pass this release's rules for tarballs; the next rebuild leaves it out of the index", "yank it, and publish a new version", false},
	{codeStray, "among the blobs lies something whose name is no CID", "find out what wrote it, and remove it: nothing here reads it", false},
	{codeUnreadable, "something could not be read, so it is not known what it is", "look at the permissions, the disk and the network, then look again; bytes of a version that stay unreadable are written anew when an owner publishes them again, those of a crate of another registry when somebody asks for it", false},
}

// checkOf finds a Check by its code, which is there.
func checkOf(code string) Check {
	for _, c := range Checks {
		if c.Code == code {
			return c
		}
	}
	panic("registry: no check " + code)
}
