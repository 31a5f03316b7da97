package api

import (
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/power"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// Prefix begins the paths of all requests but /healthz and /metrics.
const Prefix = "/api/v1"

// What a request may have at most.
const (
	maxBody    = 128 << 10 // bytes of a body
	maxTargets = 1000      // boxes and groups of one request, and boxes of the groups together
)

// Options are what an admin may ask for besides the action.
type Options struct {
	Disks         []string   `json:"disks,omitempty" maxItems:"64" maxLength:"4096" doc:"only these disks: kernel names, /dev paths, by-id and by-path names, serials"`
	Map           []string   `json:"map,omitempty" maxItems:"64" maxLength:"512" doc:"where images go in a restore or verify, as IMAGE=DISK; others find their disks by themselves"`
	ShrinkTable   bool       `json:"shrinkTable,omitempty" doc:"in a restore or verify, take a disk that is smaller than its image if it is proved that nothing uses the image's end"`
	AcceptMachine bool       `json:"acceptMachine,omitempty" doc:"take a machine in place of the one that is known"`
	AcceptFailing bool       `json:"acceptFailing,omitempty" doc:"back up a disk of which much cannot be read; what cannot is zeros in its image"`
	AllUsed       bool       `json:"allUsed,omitempty" doc:"back up all of each disk, whatever its file systems say is used"`
	Image         string     `json:"image,omitempty" maxLength:"320" doc:"backup to restore or to compare with, as ID, or as BOX@ID of the same box; without it the box's baseline, or else its latest backup"`
	From          string     `json:"from,omitempty" maxLength:"260" doc:"another box, whose backup is used: by its address, name, MAC or UUID, or as the store has it; image is then a backup of that box"`
	Hooks         []box.Hook `json:"hooks,omitempty" maxItems:"8" enum:"hostname,machine-id,ssh-keys" doc:"changes of the restored system, by which it becomes that of its box"`
}

// Job is one action that is asked of one box, once.
type Job struct {
	ID       string          `json:"id" doc:"the job's id"`
	Box      string          `json:"box" example:"10.40.41.42" doc:"address of the box"`
	Name     string          `json:"name,omitempty" doc:"name of the box"`
	Action   box.Action      `json:"action" doc:"what is asked of the box"`
	Options  Options         `json:"options" doc:"what was asked for besides"`
	By       string          `json:"by" doc:"who asked"`
	WaitUp   bool            `json:"waitUp,omitempty" doc:"the job ends only when the box's own system is seen, or its time is over"`
	Power    bool            `json:"power,omitempty" doc:"the server restarts the box; else somebody has to"`
	Asked    time.Time       `json:"asked" doc:"when it was asked for"`
	State    job.State       `json:"state" doc:"where it stands; ended is the last"`
	Since    time.Time       `json:"since" doc:"when the state began"`
	Settled  bool            `json:"settled" doc:"what belongs to the state is done; of a job that has ended it says that the box is not armed any more"`
	Step     int             `json:"step" doc:"counts the changes of the job, so that an old answer is known as one"`
	Text     string          `json:"text,omitempty" doc:"why it is in this state"`
	Attempt  int             `json:"attempt,omitempty" doc:"which attempt this is, or was; the first is 1"`
	Deadline time.Time       `json:"deadline,omitzero" doc:"when the state ends by itself"`
	Until    time.Time       `json:"until,omitzero" doc:"when it must have begun; a job of a schedule that has not ends then"`
	Cancel   bool            `json:"cancelling,omitempty" doc:"the box was told to stop"`
	Wrote    bool            `json:"wrote,omitempty" doc:"a disk may have been written to"`
	Outcome  box.Outcome     `json:"outcome,omitempty" doc:"how it ended, as soon as it is known"`
	Class    job.Class       `json:"class,omitempty" doc:"where the cause of a failure is: box, image, server, network or admin"`
	Up       job.Up          `json:"up,omitempty" doc:"whether the box's own system was seen afterwards: yes, no, not asked"`
	Bootable bool            `json:"bootable" doc:"whether the box may start from its own disks, as far as this job knows"`
	Wait     *Wait           `json:"wait,omitempty" doc:"what a queued job waits for"`
	Progress *Progress       `json:"progress,omitempty" doc:"what the box is doing"`
	Room     *Room           `json:"room,omitempty" doc:"of a restore: how the box gets chunks from other boxes that restore the same backup; left out of one that is alone"`
	Backup   string          `json:"backup,omitempty" doc:"id of the backup that was made or used"`
	Receipts []image.Receipt `json:"receipts,omitempty" doc:"what proves the action, for each disk"`
	Warnings []string        `json:"warnings,omitempty" doc:"what was not as it should be"`
	HostKeys []string        `json:"hostKeys,omitempty" doc:"of the ssh server of a box that is up for rescue: the type and the key in base64, as in a known_hosts file"`
	Sent     int64           `json:"sent,omitempty" doc:"bytes of the store's objects that crossed the network"`
}

// Ended reports whether nothing changes any more, and all is done that belongs to the
// end. A box is not armed any more then.
func (j *Job) Ended() bool { return j.State == job.Ended && j.Settled }

// Restored reports whether the job has given its box the system of a backup.
func (j *Job) Restored() bool {
	return j.Action == box.Restore && (j.Outcome == box.Done || j.Outcome == box.BadSectors)
}

// SharesMachineID reports whether the box may have the machine-id of another one after this job, since it got its system
// without the hook that takes the id away.
func (j *Job) SharesMachineID() bool {
	return j.Restored() && box.SharesMachineID(j.Options.From, j.Options.Hooks)
}

// Wait is what a queued job waits for.
type Wait struct {
	Place  int        `json:"place" doc:"place in the queue; 1 is the next"`
	Reason job.Reason `json:"reason" doc:"the reason in a word"`
	Text   string     `json:"text" doc:"the reason in a sentence"`
}

// Progress is what a box is doing.
type Progress struct {
	Step  wire.Step `json:"step,omitempty" doc:"inventory, check, compare, read, write, verify or commit"`
	Text  string    `json:"text,omitempty" doc:"the step in words, with how far it is"`
	Done  int64     `json:"done,omitempty" doc:"bytes of total"`
	Total int64     `json:"total,omitempty" doc:"bytes; 0 if it is not known"`
	Left  int64     `json:"left,omitempty" doc:"in how many seconds all of the job will be done, as the box reckons; left out if that is not known"`
}

// Room is how a box gets chunks from other boxes that restore the same backup.
type Room struct {
	Boxes      int         `json:"boxes,omitempty" doc:"boxes in the room, this one included; left out when it is in none any more"`
	FromServer int64       `json:"fromServer" doc:"bytes of chunks, as the store has them, that came from the server"`
	FromPeers  int64       `json:"fromPeers" doc:"the same, from other boxes"`
	ToPeers    int64       `json:"toPeers" doc:"the same, sent to other boxes"`
	Deaf       bool        `json:"deaf,omitempty" doc:"it gets all from the server, since it reaches no other box, or gets too little from them"`
	Faults     []RoomFault `json:"faults,omitempty" doc:"what other boxes say of it"`
	Dropped    bool        `json:"dropped,omitempty" doc:"other boxes are not told of it any more, since two of them got wrong bytes from it"`
}

// RoomFault is what other boxes say of one.
type RoomFault struct {
	Fault room.Fault `json:"fault" doc:"garbage: wrong bytes; stalls: nothing comes, or next to nothing; slow; lacks: it does not send what it said to have"`
	Boxes int        `json:"boxes" doc:"how many boxes say so; the log of the server and the audit log name them"`
	Text  string     `json:"text" doc:"the same in a sentence"`
}

// JobList is a page of a list.
type JobList struct {
	Jobs []Job  `json:"jobs" doc:"the latest first"`
	Next string `json:"next,omitempty" doc:"after this the next page begins; a page may be short although there is another"`
}

// NewJobs asks for an action.
type NewJobs struct {
	Action  box.Action `json:"action" doc:"what is asked of the boxes" enum:"backup,backup-again,restore,verify,refresh-info,rescue"`
	Targets []string   `json:"targets" minItems:"1" maxItems:"1000" maxLength:"260" doc:"boxes, by address, name, MAC or UUID, and groups; group:NAME, label:NAME and box:NAME say which is meant"`
	Options Options    `json:"options,omitzero" doc:"what is asked for besides"`
	WaitUp  bool       `json:"waitUp,omitempty" doc:"a job ends only when the box's own system is seen, or its time is over"`
	Key     string     `json:"key,omitempty" maxLength:"200" doc:"the same request with the same key gives the jobs that there are, so it can be repeated"`
	Why     string     `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
	// Marks are for whoever has shown somebody what would be done, and has had that confirmed.
	Marks map[string]string `json:"marks,omitempty" doc:"marks that a check has given, by the addresses of boxes; the request is refused if a box of them, or the backup that is meant, is another by now"`
}

// CheckedJob is what a request for jobs would do to a box.
type CheckedJob struct {
	Box     string   `json:"box" doc:"address of the box"`
	Name    string   `json:"name,omitempty" doc:"name of the box"`
	New     bool     `json:"new,omitempty" doc:"nobody knows the box yet; the request would make it one. The target box:ADDRESS is refused then"`
	Refused string   `json:"refused,omitempty" doc:"why it would get no job; then no box of the request gets one"`
	Open    *LastJob `json:"open,omitempty" doc:"a job of the box that has not ended, for which the new one would wait"`
	Power   string   `json:"power,omitempty" doc:"name of the power command that would restart it; without one somebody has to"`
	// Backup is what a restore would put onto its disks, or a verify would compare them with.
	Backup *Backup `json:"backup,omitempty" doc:"the backup that is meant by a restore or a verify"`
	Mark   string  `json:"mark,omitempty" doc:"of a restore or a verify: stands for the box, its name and machine, and for the backup with its disks"`
}

// CheckedJobs has all boxes of a request.
type CheckedJobs struct {
	Jobs []CheckedJob `json:"jobs" doc:"in the order of the boxes in the request"`
}

// Reason is a body that has only a reason.
type Reason struct {
	Why string `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// Holder has a box for itself.
type Holder struct {
	Name    string    `json:"name,omitempty" maxLength:"200" doc:"who has the box; without it, who asks"`
	Reason  string    `json:"reason,omitempty" maxLength:"1000" doc:"what for"`
	Expires time.Time `json:"expires,omitzero" doc:"when that ends; without it, never"`
	// For spares a client whose clock is wrong a reservation that ends too early.
	For int64 `json:"for,omitempty" minimum:"1" maximum:"315360000" doc:"in a request, in place of expires: for so many seconds from now on"`
}

// LastJob is the short form of a box's latest job.
type LastJob struct {
	ID      string      `json:"id"`
	Action  box.Action  `json:"action"`
	State   job.State   `json:"state"`
	Since   time.Time   `json:"since" doc:"when the state began"`
	Outcome box.Outcome `json:"outcome,omitempty"`
	Class   job.Class   `json:"class,omitempty"`
	Up      job.Up      `json:"up,omitempty"`
	By      string      `json:"by,omitempty"`
	Text    string      `json:"text,omitempty"`
}

// LastBackup names the latest backup of a box.
type LastBackup struct {
	ID   string    `json:"id" example:"20261129-080000"`
	Time time.Time `json:"time" doc:"when it was committed"`
}

// Box is what is known of a box.
type Box struct {
	Address      string         `json:"address" example:"10.40.41.42" doc:"IPv4 address, by which the box is known"`
	Name         string         `json:"name,omitempty" doc:"no other box has it"`
	MACs         []string       `json:"macs,omitempty" doc:"of its network cards"`
	UUID         string         `json:"uuid,omitempty" doc:"of the machine"`
	Labels       []string       `json:"labels,omitempty"`
	Groups       []string       `json:"groups,omitempty"`
	Health       ledger.Health  `json:"health" doc:"good, suspect, bad, maintenance or retired"`
	HealthReason string         `json:"healthReason,omitempty"`
	Holder       *Holder        `json:"holder,omitempty" doc:"who has reserved the box"`
	FirstSeen    time.Time      `json:"firstSeen,omitzero"`
	LastSeen     time.Time      `json:"lastSeen,omitzero"`
	Last         *LastJob       `json:"last,omitempty" doc:"its latest job"`
	LastBackup   *LastBackup    `json:"lastBackup,omitempty" doc:"its latest backup, among those whose records can be read"`
	Power        string         `json:"power,omitempty" doc:"name of the power command that is set for the box itself, or none"`
	Keep         string         `json:"keep,omitempty" example:"last=3,daily=7" doc:"which backups are kept, if that is set for the box itself; or all"`
	Peers        string         `json:"peers,omitempty" doc:"on or off, if it is set for the box itself whether it gets chunks of images from other boxes"`
	Effective    *Effective     `json:"effective,omitempty" doc:"what holds for the box, by itself, its groups and the server's configuration; only of a single box"`
	SilentSince  time.Time      `json:"silentSince,omitzero" doc:"when it was found that the box had not been seen for longer than is usual for it"`
	Lost         bool           `json:"lost,omitempty" doc:"it is silent since it was to start anew after an action, and has not asked for its boot files"`
	Firmware     *BoxFirmware   `json:"firmware,omitempty" doc:"what its latest start of the maintenance system noted of its firmware"`
	UsualPause   int64          `json:"usualPause,omitempty" doc:"for how many seconds it is usually not seen at most; left out while that is not known"`
	Moved        *Moved         `json:"moved,omitempty" doc:"its machine asks from another address"`
	Shared       *SharedAddress `json:"shared,omitempty" doc:"another machine asks from its address"`
	Machines     []Machine      `json:"machines,omitempty" doc:"what its network cards asked for at its latest starts; only of a single box"`
	Schedules    []BoxSchedule  `json:"schedules,omitempty" doc:"when schedules of the server are due for it; only of a single box"`
	Disks        *string        `json:"disks,omitempty" doc:"bytes of disk-devices.lst, which says which disks are used; only of a single box"`
}

// Effective is what holds for a box. What is set for the box itself goes first, then come its groups, and then
// the server's configuration.
type Effective struct {
	Power    string `json:"power" doc:"name of the power command, or none"`
	PowerWhy string `json:"powerWhy,omitempty" doc:"where that is set, or why there is none"`
	Keep     string `json:"keep" doc:"which backups are kept"`
	KeepWhy  string `json:"keepWhy,omitempty" doc:"where that is set"`
	Peers    string `json:"peers" doc:"on or off: whether it gets chunks of images from other boxes that restore the same backup, and gives them"`
	PeersWhy string `json:"peersWhy,omitempty" doc:"where that is set"`
}

// BoxList is a page of a list.
type BoxList struct {
	Boxes []Box  `json:"boxes" doc:"by their addresses"`
	Next  string `json:"next,omitempty" doc:"after this the next page begins; a page may be short although there is another"`
	// Unknown is no error of the request, since boxes are also looked at when the store
	// is away.
	Unknown string `json:"lastBackupsUnknown,omitempty" doc:"why the latest backups of the boxes are not known"`
}

// NewBox adds a box.
type NewBox struct {
	Address string   `json:"address,omitempty" maxLength:"15" example:"10.40.41.42" doc:"IPv4 address with which the box boots; without it, that of the machine"`
	Machine string   `json:"machine,omitempty" maxLength:"64" doc:"MAC, UUID or address of a machine that was seen and is no box; what it told is filled in"`
	Name    string   `json:"name,omitempty" maxLength:"253"`
	MACs    []string `json:"macs,omitempty" maxItems:"64" maxLength:"64"`
	UUID    string   `json:"uuid,omitempty" maxLength:"64"`
	Labels  []string `json:"labels,omitempty" maxItems:"64" maxLength:"100"`
	Groups  []string `json:"groups,omitempty" maxItems:"64" maxLength:"100"`
	Why     string   `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// AcceptBox says which machine is taken for a box.
type AcceptBox struct {
	MACs []string `json:"macs,omitempty" maxItems:"64" maxLength:"64" doc:"its network cards. Wanted if this server gives the addresses by DHCP, since the machine gets that of the box by its card"`
	Why  string   `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// NewAddress is the new address of a box.
type NewAddress struct {
	Address string `json:"address" maxLength:"15" example:"10.40.41.43"`
	Why     string `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// SetBox changes a box. What is left out stays as it is.
type SetBox struct {
	Name         *string   `json:"name,omitempty" maxLength:"253"`
	Labels       *[]string `json:"labels,omitempty" maxItems:"64" maxLength:"100"`
	Groups       *[]string `json:"groups,omitempty" maxItems:"64" maxLength:"100"`
	Health       *string   `json:"health,omitempty" enum:"good,suspect,bad,maintenance,retired"`
	HealthReason *string   `json:"healthReason,omitempty" maxLength:"1000" doc:"wanted for each health but good"`
	Power        string    `json:"power,omitempty" maxLength:"64" doc:"name of a power command of the server's configuration; none for no command, default to let groups and configuration decide"`
	Keep         string    `json:"keep,omitempty" maxLength:"100" example:"last=3,daily=7" doc:"which backups are kept: last, daily, weekly, monthly, each with a number; all; or default to let groups and configuration decide"`
	Peers        string    `json:"peers,omitempty" enum:"on,off,default" doc:"whether it gets chunks of images from other boxes; default to let groups and configuration decide"`
	Disks        *string   `json:"disks,omitempty" maxLength:"65536" doc:"new content of disk-devices.lst; an empty one means all disks"`
	Why          string    `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// SwitchBox asks for the power of a box.
type SwitchBox struct {
	Action power.Action `json:"action" enum:"on,off,cycle" doc:"cycle is off, and on again"`
	Force  bool         `json:"force,omitempty" doc:"also while the box is at work, which can leave a disk half written"`
	Why    string       `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// Switched is what came of a power command.
type Switched struct {
	Box     string       `json:"box" doc:"address of the box"`
	Action  power.Action `json:"action"`
	Power   string       `json:"power,omitempty" doc:"name of the power command"`
	Outcome string       `json:"outcome" enum:"done,failed,running" doc:"running means that it has not ended yet; the log of the box will say how it ends"`
	Text    string       `json:"text,omitempty" doc:"why it failed"`
	Output  string       `json:"output,omitempty" doc:"what the command has said; of a long output the beginning and the end"`
}

// The outcomes of a power command.
const (
	PowerDone    = "done"
	PowerFailed  = "failed"
	PowerRunning = "running"
)

// Group is a group of boxes.
type Group struct {
	Name  string `json:"name"`
	Most  *int   `json:"most,omitempty" doc:"how many of its boxes may be at work at once; 0 closes the group, and without it there is no limit"`
	Power string `json:"power,omitempty" doc:"name of the power command of its boxes, or none"`
	Keep  string `json:"keep,omitempty" example:"last=3,daily=7" doc:"which backups of its boxes are kept, or all"`
	Peers string `json:"peers,omitempty" doc:"on or off: whether its boxes get chunks of images from other boxes"`
	Boxes int    `json:"boxes" doc:"how many boxes are in it"`
	// Unread is no error of the request, so that the other groups can be seen.
	Unread string `json:"settingsUnread,omitempty" doc:"why its settings cannot be read; no box of it begins a job then, and none of its backups are deleted"`
}

// SetGroup makes or changes a group. What is left out is not set then.
type SetGroup struct {
	Most  *int   `json:"most,omitempty" minimum:"0" maximum:"100000" doc:"how many of its boxes may be at work at once; 0 closes the group, and without it there is no limit"`
	Power string `json:"power,omitempty" maxLength:"64" doc:"name of a power command of the server's configuration, for its boxes; or none"`
	Keep  string `json:"keep,omitempty" maxLength:"100" example:"last=3,daily=7" doc:"which backups of its boxes are kept: last, daily, weekly, monthly, each with a number; or all"`
	Peers string `json:"peers,omitempty" enum:"on,off,default" doc:"whether its boxes get chunks of images from other boxes"`
	Why   string `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// User is somebody who may have tokens.
type User struct {
	Name string      `json:"name"`
	Role ledger.Role `json:"role"`
}

// SetUser makes or changes a user.
type SetUser struct {
	Role string `json:"role" enum:"viewer,operator,admin" doc:"the most that the user's tokens may do"`
	Why  string `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// Token lets whoever has its secret in. The server does not know the secret.
type Token struct {
	ID      string      `json:"id" doc:"the beginning of the hash of the secret"`
	Name    string      `json:"name" doc:"what it is for"`
	User    string      `json:"user,omitempty" doc:"whose it is"`
	Role    ledger.Role `json:"role"`
	Group   string      `json:"group,omitempty" doc:"the only boxes that it is for"`
	Expires time.Time   `json:"expires,omitzero" doc:"when it ends; without it, never"`
	Secret  string      `json:"secret,omitempty" doc:"said only once, when the token is made"`
}

// NewToken asks for a token.
type NewToken struct {
	Name    string    `json:"name" minLength:"1" maxLength:"100" doc:"what it is for"`
	User    string    `json:"user,omitempty" maxLength:"100" doc:"whose it is; the user must exist"`
	Role    string    `json:"role" enum:"viewer,operator,admin"`
	Group   string    `json:"group,omitempty" maxLength:"100" doc:"the only boxes that it is for; the group must exist"`
	Expires time.Time `json:"expires,omitzero" doc:"when it ends; without it, never"`
	Why     string    `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// Entry is a line of the audit log.
type Entry struct {
	Number int64     `json:"number" doc:"later entries have higher ones"`
	Time   time.Time `json:"time"`
	Who    string    `json:"who"`
	From   string    `json:"from" doc:"an address, or \"socket\", and behind it who called sudo, as the client says"`
	What   string    `json:"what"`
	On     string    `json:"on,omitempty" doc:"a box, a job, a user"`
	Why    string    `json:"why,omitempty"`
}

// Entries is a page of the audit log.
type Entries struct {
	Entries []Entry `json:"entries" doc:"the latest first"`
	Next    string  `json:"next,omitempty" doc:"after this the next page begins"`
}

// Me is who asks.
type Me struct {
	Name    string      `json:"name"`
	Role    ledger.Role `json:"role"`
	Group   string      `json:"group,omitempty" doc:"the only boxes that may be seen"`
	Expires time.Time   `json:"expires,omitzero" doc:"when the token ends"`
	Version string      `json:"version" doc:"of the server"`
}
