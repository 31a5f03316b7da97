package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"testbox-imaging/internal/ledger"
)

// route is a request of the API.
type route struct {
	id           string
	method, path string
	role         ledger.Role // that is needed; "" means that anybody may ask
	all          bool        // not for tokens that are limited to a group
	status       int         // of success
	tag          string
	summary      string
	about        string
	add          func(*Server, huma.Operation)
}

// routes is the one table of all requests, and of who may make them.
var routes = []route{
	{"list-jobs", "GET", Prefix + "/jobs", ledger.Viewer, false, 200, "jobs", "List jobs, the latest first", "", on((*Server).listJobs)},
	{"add-jobs", "POST", Prefix + "/jobs", ledger.Operator, false, 201, "jobs", "Ask boxes for an action",
		"All boxes get a job, or none does. The request can be repeated with the same `key`, and then gives the jobs that there are. " +
			"With `wait` the answer comes when each job has ended, is held or is up for rescue, or when the time is over; " +
			"give a `key` too, so that a connection that breaks meanwhile can be made again.",
		on((*Server).addJobs)},
	{"check-jobs", "POST", Prefix + "/jobs/check", ledger.Operator, false, 200, "jobs", "Say what a request for jobs would do",
		"It makes no job. For each box the answer says whether it would get one, which backup is meant, and which disks that has.",
		on((*Server).checkJobs)},
	{"get-job", "GET", Prefix + "/jobs/{job}", ledger.Viewer, false, 200, "jobs", "Show a job",
		"With `wait` the answer comes when the job has ended, is held or is up for rescue, or when the time is over.", on((*Server).getJob)},
	{"cancel-job", "POST", Prefix + "/jobs/{job}/cancel", ledger.Operator, false, 200, "jobs", "Cancel a job",
		"A box that is at work is told with its next report, and stops where it does no harm.", on((*Server).cancelJob)},

	{"list-boxes", "GET", Prefix + "/boxes", ledger.Viewer, false, 200, "boxes", "List boxes, by their addresses",
		"Each has the state of its latest job, and its latest backup.", on((*Server).listBoxes)},
	{"add-box", "POST", Prefix + "/boxes", ledger.Admin, true, 201, "boxes", "Add a box",
		"With `machine`, or with the address of a machine that was seen and is no box yet, its MAC and UUID are filled in.",
		on((*Server).addBox)},
	{"list-machines", "GET", Prefix + "/machines", ledger.Viewer, true, 200, "boxes", "List machines that nobody knows",
		"They have asked for something at their start and are no boxes. Nothing is armed for them.", on((*Server).listMachines)},
	{"get-box", "GET", Prefix + "/boxes/{box}", ledger.Viewer, false, 200, "boxes", "Show a box", "", on((*Server).getBox)},
	{"set-box", "PATCH", Prefix + "/boxes/{box}", ledger.Operator, false, 200, "boxes", "Change a box",
		"What is left out stays as it is.", on((*Server).setBox)},
	{"delete-box", "DELETE", Prefix + "/boxes/{box}", ledger.Admin, true, 204, "boxes", "Forget a box",
		"Its jobs, logs and backups stay.", on((*Server).deleteBox)},
	{"accept-box", "POST", Prefix + "/boxes/{box}/accept", ledger.Admin, false, 200, "boxes", "Accept another machine as this box",
		"The machine that says hello next from the address of the box is taken for it.", on((*Server).acceptBox)},
	{"readdress-box", "POST", Prefix + "/boxes/{box}/readdress", ledger.Admin, true, 200, "boxes", "Give a box another address",
		"Its jobs, logs, settings and backups go with it. It must have no job that has not ended. If it fails in the middle, the box gets no " +
			"jobs, and the same request goes on.", on((*Server).readdressBox)},
	{"hold-box", "PUT", Prefix + "/boxes/{box}/holder", ledger.Operator, false, 200, "boxes", "Reserve a box",
		"Others' jobs are refused then. Only an admin may take a box from somebody else.", on((*Server).holdBox)},
	{"unhold-box", "DELETE", Prefix + "/boxes/{box}/holder", ledger.Operator, false, 200, "boxes", "Give a box back", "",
		on((*Server).unholdBox)},
	{"release-box", "POST", Prefix + "/boxes/{box}/release", ledger.Operator, false, 200, "boxes",
		"Let a held box start from its disks as they are", "", on((*Server).releaseBox)},
	{"finish-box", "POST", Prefix + "/boxes/{box}/finish", ledger.Operator, false, 200, "boxes", "End the rescue of a box", "",
		on((*Server).finishBox)},
	{"power-box", "POST", Prefix + "/boxes/{box}/power", ledger.Operator, false, 200, "boxes", "Switch a box on, off, or off and on",
		"The server runs the power command of the box, and answers when that has ended, or after a minute and a half. " +
			"While a box is at work or up for rescue it is refused, unless it is forced. `outcome` says whether it was done.",
		on((*Server).powerBox)},
	{"get-log", "GET", Prefix + "/boxes/{box}/log", ledger.Viewer, false, 200, "boxes", "Read the log of a box",
		"With `follow` the answer goes on with each new line, until the client goes.", on((*Server).getLog)},
	{"get-inventory", "GET", Prefix + "/boxes/{box}/inventory", ledger.Viewer, false, 200, "boxes", "Read the inventory of a box", "",
		on((*Server).getInventory)},

	{"get-changes", "GET", Prefix + "/boxes/{box}/inventory/changes", ledger.Viewer, false, 200, "boxes", "Say what of a box has changed",
		"The inventory is compared with the latest one that was different. What changes by itself is left out: times, temperatures, " +
			"hours of work. It has the health of the disks too.", on((*Server).getChanges)},
	{"get-firmware", "GET", Prefix + "/boxes/{box}/firmware", ledger.Viewer, false, 200, "boxes", "Show the state of a box's firmware",
		"It is of the latest start of the maintenance system, and is compared with the latest backup.", on((*Server).getFirmware)},
	{"get-rates", "GET", Prefix + "/boxes/{box}/rates", ledger.Viewer, false, 200, "boxes", "Say how fast the actions of a box were", "",
		on((*Server).getRates)},

	{"list-backups", "GET", Prefix + "/backups/{owner}", ledger.Viewer, false, 200, "backups", "List the backups of a box", "",
		on((*Server).listBackups)},
	{"set-backup", "PATCH", Prefix + "/backups/{owner}/{backup}", ledger.Operator, false, 200, "backups",
		"Pin a backup, make it the baseline, or give it a note", "What is left out stays as it is.", on((*Server).setBackup)},
	{"set-backup-time", "PUT", Prefix + "/backups/{owner}/{backup}/time", ledger.Admin, false, 200, "backups",
		"Put the time of a backup right", "The backup gets the id that goes with the time. All else of it stays.", on((*Server).setBackupTime)},
	{"delete-backup", "DELETE", Prefix + "/backups/{owner}/{backup}", ledger.Admin, false, 204, "backups", "Delete a backup",
		"Its bytes are got back by the next upkeep. A pinned backup and the baseline are not deleted.", on((*Server).deleteBackup)},
	{"set-boot-test", "PUT", Prefix + "/backups/{owner}/{backup}/boot-test", ledger.Operator, false, 200, "backups",
		"Note the result of a boot test of a backup", "`testbox image boot-test` makes the test, and notes its result by this.",
		on((*Server).setBoot)},
	{"get-boot-picture", "GET", Prefix + "/backups/{owner}/{backup}/boot-test/picture", ledger.Viewer, false, 200, "backups",
		"Get the picture of the last screen of a boot test", "The answer is a PNG.", on((*Server).getBootPicture)},

	{"get-backup-firmware", "GET", Prefix + "/backups/{owner}/{backup}/firmware", ledger.Viewer, false, 200, "backups",
		"Show the state that the box's firmware had at a backup", "It is compared with an earlier backup.", on((*Server).getBackupFirmware)},
	{"get-content", "GET", Prefix + "/backups/{owner}/{backup}/disks/{disk}/content", ledger.Operator, false, 200, "backups",
		"Say what a disk of a backup is known by", "", on((*Server).getContent)},
	{"get-map", "GET", Prefix + "/backups/{owner}/{backup}/disks/{disk}/map", ledger.Viewer, false, 200, "backups",
		"Say what a disk of a backup holds, for drawing it",
		"Partitions, and which pieces of the disk are used, in doubt, or changed since an earlier backup.", on((*Server).getMap)},
	{"add-upload", "POST", Prefix + "/backups/{owner}/uploads", ledger.Operator, false, 201, "backups", "Begin to add a backup",
		"The answer has a token for one session, by which a backup of this box is sent as the agent of a box sends one.",
		on((*Server).addUpload)},
	{"get-store", "GET", Prefix + "/store", ledger.Viewer, true, 200, "store", "Show the store", "", on((*Server).getStore)},
	{"get-store-history", "GET", Prefix + "/store/history", ledger.Viewer, true, 200, "store",
		"Say what the store had over time, and when it will be full",
		"The server notes about once an hour what the store has. Of the days before the last two weeks the last figures of each day are kept, " +
			"for five years.", on((*Server).getStoreHistory)},
	{"add-upkeep", "POST", Prefix + "/store/upkeep", ledger.Admin, true, 201, "store", "Look after the store",
		"It goes on when the client goes. It gives way to restores, and there is one such work at a time, also that of the night.",
		on((*Server).addUpkeep)},
	{"get-upkeep", "GET", Prefix + "/store/upkeep/{upkeep}", ledger.Admin, true, 200, "store", "Show how work on the store stands",
		"With `wait` the answer comes when it has ended, or when the time is over.", on((*Server).getUpkeep)},
	{"cancel-upkeep", "POST", Prefix + "/store/upkeep/{upkeep}/cancel", ledger.Admin, true, 200, "store", "Cancel work on the store",
		"What it has done until then counts. It may take a moment until it has ended.", on((*Server).cancelUpkeep)},

	{"list-groups", "GET", Prefix + "/groups", ledger.Viewer, false, 200, "groups", "List groups", "", on((*Server).listGroups)},
	{"set-group", "PUT", Prefix + "/groups/{group}", ledger.Admin, true, 200, "groups", "Make or change a group", "",
		on((*Server).putGroup)},
	{"delete-group", "DELETE", Prefix + "/groups/{group}", ledger.Admin, true, 204, "groups", "Delete a group",
		"No box may be in it, and no token may be limited to it.", on((*Server).deleteGroup)},

	{"list-schedules", "GET", Prefix + "/schedules", ledger.Viewer, true, 200, "schedules", "List schedules, by their names",
		"Schedules are in the configuration of the server.", on((*Server).listSchedules)},
	{"get-schedule", "GET", Prefix + "/schedules/{schedule}", ledger.Viewer, true, 200, "schedules", "Show a schedule", "",
		on((*Server).getSchedule)},
	{"run-schedule", "POST", Prefix + "/schedules/{schedule}/run", ledger.Operator, true, 201, "schedules", "Make the jobs of a schedule now",
		"They are jobs of the caller. A box that can have none now is left out, and the answer says why. The next start of the " +
			"schedule stays as it is.", on((*Server).runSchedule)},
	{"pause-schedule", "POST", Prefix + "/schedules/{schedule}/pause", ledger.Operator, true, 200, "schedules", "Pause a schedule",
		"It makes no jobs until it is resumed, also after a restart of the server. Jobs that it has made stay.", on((*Server).pauseSchedule)},
	{"resume-schedule", "POST", Prefix + "/schedules/{schedule}/resume", ledger.Operator, true, 200, "schedules",
		"Let a paused schedule go on", "What it would have done while it was paused is not made up for.", on((*Server).resumeSchedule)},

	{"list-users", "GET", Prefix + "/users", ledger.Admin, true, 200, "access", "List users", "", on((*Server).listUsers)},
	{"set-user", "PUT", Prefix + "/users/{user}", ledger.Admin, true, 200, "access", "Make or change a user",
		"A token of a user may do no more than the user.", on((*Server).putUser)},
	{"delete-user", "DELETE", Prefix + "/users/{user}", ledger.Admin, true, 204, "access", "Delete a user, with all tokens of the user",
		"", on((*Server).deleteUser)},
	{"list-tokens", "GET", Prefix + "/tokens", ledger.Admin, true, 200, "access", "List tokens, without their secrets", "",
		on((*Server).listTokens)},
	{"add-token", "POST", Prefix + "/tokens", ledger.Admin, true, 201, "access", "Make a token",
		"The secret is in the answer, and is said only once. The server keeps a hash of it.", on((*Server).addToken)},
	{"delete-token", "DELETE", Prefix + "/tokens/{token}", ledger.Admin, true, 204, "access", "Delete a token", "",
		on((*Server).deleteToken)},
	{"list-audit", "GET", Prefix + "/audit", ledger.Admin, true, 200, "access", "Read the audit log, the latest entry first", "",
		on((*Server).listAudit)},
	{"get-me", "GET", Prefix + "/me", ledger.Viewer, false, 200, "access", "Say who asks, and what the role is", "", on((*Server).getMe)},

	{"get-events", "GET", Prefix + "/events", ledger.Viewer, false, 200, "events", "Follow jobs, boxes and what is seen of machines",
		"Server-sent events. An event `job` has a job as it is now; of several changes that come quickly, only the last may be sent. " +
			"An event `box` says that somebody has added, changed, reserved, given back or forgotten a box: [BoxEvent](#boxevent). " +
			"An event `sight` says that a machine that nobody knows asked for the first time (`new`), that the machine of a box asks from another " +
			"address (`moved`), that two machines ask from one (`shared`), that a box was not seen for longer than is usual for it (`silent`) " +
			"or was seen again (`back`): [SightEvent](#sightevent). " +
			"An event `schedule` says what a schedule has done: its name, the time, `what` (start, missed, left-out, clock, pause or resume) " +
			"and a `text`. An event `boot-test` says how a boot test of a backup has ended: [BootTestEvent](#boottestevent). " +
			"An event `alive` comes every 15 seconds, and says that the connection is; it has no id. " +
			"An event `reset` comes first, and again when events were lost: read what is to be known anew then. " +
			"Who sends the id of the last event in the header `Last-Event-ID` gets what came after it, without `reset`.", on((*Server).getEvents)},
	{"get-status", "GET", Prefix + "/status", ledger.Viewer, true, 200, "server", "Say which part of the server does what",
		"Each part says at which addresses it answers, and what is missing so that boxes are served.", on((*Server).getStatus)},
	{"get-openapi", "GET", Prefix + "/openapi.json", ledger.Viewer, false, 200, "server", "Describe the API for programs", "",
		on((*Server).getOpenAPI)},
	{"get-metrics", "GET", "/metrics", ledger.Viewer, true, 200, "server", "Give figures for Prometheus", "", on((*Server).getMetrics)},
	{"get-health", "GET", "/healthz", "", false, 200, "server", "Say whether the server works",
		"Anybody may ask. The status is 503 if the ledger cannot be read.", on((*Server).getHealth)},
}

var routeByID = func() map[string]*route {
	all := map[string]*route{}
	for i := range routes {
		all[routes[i].id] = &routes[i]
	}
	return all
}()

// on adds a handler of a route. Its errors become problems.
func on[I, O any](handle func(*Server, context.Context, *I) (*O, error)) func(*Server, huma.Operation) {
	return func(s *Server, op huma.Operation) {
		huma.Register(s.huma, op, func(ctx context.Context, in *I) (*O, error) {
			out, err := handle(s, ctx, in)
			if v, ok := ctx.Value(visitKey{}).(*visit); ok && v.typed && err == nil {
				if out != nil {
					v.out = out
				}
				return new(O), nil // the page has the answer itself
			}
			if err == nil {
				return out, nil
			}
			p := problemOf(err)
			if p.Code == CodeFailed {
				who := ""
				if c, _ := ctx.Value(callerKey{}).(*caller); c != nil { // else anybody may ask this
					who = c.name
				}
				s.logError(who, op.OperationID, "a request failed", "request", op.OperationID, "error", err)
			}
			return nil, p
		})
	}
}

// stream is the answer of a request that writes by itself.
type stream struct {
	Body func(huma.Context)
}
