package main

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/nomad/client/logmon"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"
	pstructs "github.com/hashicorp/nomad/plugins/shared/structs"
)

// Task is what a test says of a task; the rest of Nomad's task config follows from it.
type Task struct {
	ID          string             `json:"id"`
	Name        string             `json:"name"`
	AllocID     string             `json:"alloc_id"`
	AllocDir    string             `json:"alloc_dir"`
	ConfigHCL   string             `json:"config_hcl"`
	Env         map[string]string  `json:"env"`
	User        string             `json:"user"`
	CPUShares   int64              `json:"cpu_shares"`
	MemoryMB    int64              `json:"memory_mb"`
	MemoryMaxMB int64              `json:"memory_max_mb"`
	NetNS       string             `json:"netns"`
	DNS         *drivers.DNSConfig `json:"dns"`

	Collector *pstructs.ReattachConfig `json:"collector"` // of an earlier answer

	Mounts []struct {
		Host     string `json:"host"`
		Task     string `json:"task"`
		Readonly bool   `json:"readonly"`
	} `json:"mounts"`
}

func rawJSON(text []byte) any { return json.RawMessage(text) }

func (t *Task) logDir() string { return filepath.Join(t.AllocDir, "alloc", "logs") }

func (t *Task) fifo(stream string) string {
	return filepath.Join(t.logDir(), "."+t.Name+"."+stream+".fifo")
}

// makeDirectories lays out an allocation as a Nomad client does.
func (t *Task) makeDirectories() error {
	for _, name := range []string{
		"alloc/data", "alloc/logs", "alloc/tmp",
		t.Name + "/local", t.Name + "/secrets", t.Name + "/tmp",
	} {
		if err := os.MkdirAll(filepath.Join(t.AllocDir, name), 0o777); err != nil {
			return err
		}
	}
	return nil
}

func (t *Task) driverConfig() *drivers.TaskConfig {
	env := map[string]string{
		"NOMAD_ALLOC_DIR": "/alloc", "NOMAD_TASK_DIR": "/local", "NOMAD_SECRETS_DIR": "/secrets",
		"NOMAD_ALLOC_ID": t.AllocID, "NOMAD_TASK_NAME": t.Name,
	}
	for name, value := range t.Env {
		env[name] = value
	}
	made := &drivers.TaskConfig{
		ID: t.ID, Name: t.Name, AllocID: t.AllocID, AllocDir: t.AllocDir, User: t.User, Env: env,
		JobName: "host", JobID: "host", TaskGroupName: "group", Namespace: "default",
		NodeName: "host", NodeID: "00000000-0000-0000-0000-000000000001",
		StdoutPath: t.fifo("stdout"), StderrPath: t.fifo("stderr"),
		Resources: &drivers.Resources{
			NomadResources: &structs.AllocatedTaskResources{
				Cpu: structs.AllocatedCpuResources{CpuShares: t.CPUShares},
				Memory: structs.AllocatedMemoryResources{
					MemoryMB: t.MemoryMB, MemoryMaxMB: t.MemoryMaxMB,
				},
			},
			LinuxResources: &drivers.LinuxResources{
				CPUShares: t.CPUShares, MemoryLimitBytes: max(t.MemoryMB, t.MemoryMaxMB) << 20,
			},
		},
		DNS: t.DNS,
	}
	if t.NetNS != "" {
		made.NetworkIsolation = &drivers.NetworkIsolationSpec{
			Mode: drivers.NetIsolationModeGroup, Path: t.NetNS,
		}
	}
	for _, mount := range t.Mounts {
		made.Mounts = append(made.Mounts, &drivers.MountConfig{
			HostPath: mount.Host, TaskPath: mount.Task, Readonly: mount.Readonly,
		})
	}
	return made
}

// Collector is a running log collector of a task: a process of its own, as in an agent, which
// outlives the host that started it.
type Collector struct {
	logmon.LogMon
	process  *plugin.Client
	Reattach *pstructs.ReattachConfig
}

// collectLogs has the FIFOs made and Nomad's log collector read them: the task's output ends up in
// alloc/logs/<task>.stdout.0 and .stderr.0. A collector that an earlier host left is used again,
// unless it has died since.
func (h *Host) collectLogs(task *Task) (*Collector, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known := h.logs[task.ID]; known != nil {
		return known, nil
	}
	if task.Collector != nil {
		collector, err := h.startCollector(task, task.Collector)
		if err == nil {
			return collector, nil
		}
		h.logger.Warn("the log collector is gone, starting another", "error", err)
	}
	return h.startCollector(task, nil)
}

func (h *Host) startCollector(task *Task, left *pstructs.ReattachConfig) (*Collector, error) {
	var reattach *plugin.ReattachConfig
	if left != nil {
		var err error
		if reattach, err = pstructs.ReattachConfigToGoPlugin(left); err != nil {
			return nil, err
		}
	}
	collector, process, err := logmon.LaunchLogMon(h.logger, reattach)
	if err != nil {
		return nil, err
	}
	if err := collector.Start(&logmon.LogConfig{
		LogDir:        task.logDir(),
		StdoutLogFile: task.Name + ".stdout",
		StderrLogFile: task.Name + ".stderr",
		StdoutFifo:    task.fifo("stdout"),
		StderrFifo:    task.fifo("stderr"),
		MaxFiles:      2,
		MaxFileSizeMB: 50,
	}); err != nil {
		process.Kill()
		return nil, err
	}
	found := pstructs.ReattachConfigFromGoPlugin(process.ReattachConfig())
	made := &Collector{LogMon: collector, process: process, Reattach: found}
	h.logs[task.ID] = made
	return made, nil
}
