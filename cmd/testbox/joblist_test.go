package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
)

// TestListJobs lists more jobs than the server gives in one answer, also of one box.
func TestListJobs(t *testing.T) {
	const there = 2500
	socket := filepath.Join(t.TempDir(), "testbox.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		limit, _ := strconv.Atoi(query.Get("limit"))
		after, _ := strconv.Atoi(query.Get("after"))
		if limit < 1 || limit > 1000 {
			t.Errorf("the server is asked for %d jobs", limit)
		}
		page := api.JobList{Jobs: []api.Job{}}
		for n := after; n < min(after+limit, there); n++ {
			page.Jobs = append(page.Jobs, api.Job{ID: fmt.Sprint(n), Box: "10.0.0.7"})
		}
		if after += len(page.Jobs); after < there {
			page.Next = fmt.Sprint(after)
		}
		json.NewEncoder(w).Encode(page)
	})}
	go s.Serve(l)
	defer s.Close()
	c, err := apiclient.New(apiclient.Config{Server: socket, Away: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, want := range []struct {
		words []string
		all   bool
		limit int
		jobs  int
	}{
		{nil, true, 10000, there}, {nil, true, 1500, 1500}, {nil, false, 100, 100}, {[]string{"10.0.0.7"}, true, 10000, there},
		{[]string{"10.0.0.7"}, true, 1500, 1500}, {[]string{"10.0.0.7"}, false, 10000, 1},
	} {
		jobs, err := listJobs(t.Context(), c, want.words, want.all, want.limit)
		if err != nil || len(jobs) != want.jobs || jobs[len(jobs)-1].ID != fmt.Sprint(want.jobs-1) {
			t.Errorf("%+v: there are %d jobs, %v", want, len(jobs), err)
		}
	}
}
