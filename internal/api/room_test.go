package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// roomJob is a restore of the box 10.0.0.n.
func roomJob(n int, change func(*api.Job)) api.Job {
	j := api.Job{ID: fmt.Sprint("j", n), Box: fmt.Sprint("10.0.0.", n), Action: box.Restore, State: job.Running, Backup: "10.0.0.9@b1",
		Progress: &api.Progress{Step: wire.StepWrite, Done: 1, Total: 2, Left: int64(60 * n)},
		Room:     &api.Room{Boxes: 4, FromServer: 1 << 30, FromPeers: 3 << 30}}
	if change != nil {
		change(&j)
	}
	return j
}

// TestRooms: of the boxes that restore the same backup it is said what they do, when all are done, from where their chunks
// came, and which of them gives trouble.
func TestRooms(t *testing.T) {
	jobs := []api.Job{
		roomJob(1, nil),
		roomJob(2, func(j *api.Job) { j.Name = "web-2" }),
		roomJob(3, func(j *api.Job) { j.Progress.Step, j.Progress.Left, j.Room.Deaf = wire.StepVerify, 30, true }),
		roomJob(4, func(j *api.Job) {
			j.Progress.Left = 20
			j.Room.Faults = []api.RoomFault{{Fault: room.Garbage, Boxes: 2, Text: "2 other boxes say that this one sends wrong bytes."}}
			j.Room.Dropped = true
		}),
		roomJob(9, func(j *api.Job) { // the box whose backup it is
			j.State, j.Settled, j.Outcome, j.Room, j.Progress, j.Backup = job.Ended, true, box.Done, nil, nil, "b1"
			j.Receipts = []image.Receipt{{FromServer: 2 << 30, FromPeers: 2 << 30}, {FromServer: 1 << 30}}
		}),
		roomJob(5, func(j *api.Job) { j.Action = box.Verify }),
		roomJob(6, func(j *api.Job) { j.Backup = "10.0.0.6@b2" }),
	}
	all := api.Rooms(jobs)
	if len(all) != 1 || all[0].Backup != "10.0.0.9@b1" {
		t.Fatalf("%+v", all)
	}
	want := []string{"Of 5 boxes 3 write, 1 reads back, 1 is done.", "All are done in about 2:00; the last is web-2.",
		"14.0 GiB came from other boxes, 7.00 GiB from the server."}
	if !slices.Equal(all[0].Lines, want) {
		t.Errorf("%q", all[0].Lines)
	}
	want = []string{"10.0.0.3: It reaches no other box, or gets too little from them, and takes all from the server.",
		"10.0.0.4: 2 other boxes say that this one sends wrong bytes.", "10.0.0.4: Other boxes are not told of it any more."}
	if !slices.Equal(all[0].Troubles, want) {
		t.Errorf("%q", all[0].Troubles)
	}
	jobs[0].State, jobs[0].Progress, jobs[0].Room = job.Armed, nil, nil
	jobs[2].State, jobs[2].Progress = job.Held, nil
	if got := api.Rooms(jobs)[0].Lines; got[0] != "Of 5 boxes 1 starts, 2 write, 1 is held, 1 is done." ||
		got[1] != "Those whose time is known are done in about 2:00; the last is web-2." {
		t.Errorf("%q", got)
	}
	alone := roomJob(1, func(j *api.Job) { j.Room = nil })
	if got := api.Rooms([]api.Job{alone, roomJob(2, func(j *api.Job) { j.Room = nil })}); len(got) > 0 {
		t.Errorf("boxes that get nothing from each other are a room: %+v", got)
	}
}

// TestRoomOfJob: what a box says of its room, and others say of it, is in the job.
func TestRoomOfJob(t *testing.T) {
	r := newRig(t)
	c := r.root()
	var list api.JobList
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Restore, Targets: []string{"10.0.0.1"}}, &list)
	id := list.Jobs[0].ID
	for _, k := range []struct {
		of   *wire.RoomState
		set  func(*dispatch.Status)
		want string
	}{
		{nil, nil, "{}"},
		{&wire.RoomState{Left: 90}, nil, `{"progress":{"left":90}}`},
		{&wire.RoomState{Boxes: 1, FromServer: 5}, nil, "{}"},
		{&wire.RoomState{Boxes: 3, FromServer: 5, FromPeers: 6, ToPeers: 7, Deaf: true, Left: 8}, nil,
			`{"progress":{"left":8},"room":{"boxes":3,"fromServer":5,"fromPeers":6,"toPeers":7,"deaf":true}}`},
		{&wire.RoomState{FromPeers: 6}, nil, `{"room":{"fromServer":0,"fromPeers":6,"toPeers":0}}`},
		{nil, func(st *dispatch.Status) {
			st.Faults, st.Dropped = []dispatch.RoomFault{{Fault: room.Lacks, Boxes: 1}}, true
		},
			`{"room":{"fromServer":0,"fromPeers":0,"toPeers":0,"faults":[{"fault":"lacks","boxes":1,` +
				`"text":"1 other box says that this one does not send what it said to have."}],"dropped":true}}`},
	} {
		r.runner.set(t, id, func(st *dispatch.Status) {
			st.State, st.Progress, st.Faults, st.Dropped = job.Running, &wire.Report{Room: k.of}, nil, false
			if k.set != nil {
				k.set(st)
			}
		})
		var got struct {
			Progress json.RawMessage `json:"progress,omitempty"`
			Room     json.RawMessage `json:"room,omitempty"`
		}
		c.want(200, "GET", "/api/v1/jobs/"+id, nil, &got)
		if string(got.Progress) == "{}" {
			got.Progress = nil
		}
		if text, err := json.Marshal(got); err != nil || string(text) != k.want {
			t.Errorf("%+v: %s, want %s", k.of, text, k.want)
		}
	}
}
