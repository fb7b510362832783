package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/hashicorp/nomad/helper/pluginutils/hclspecutils"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"
	pstructs "github.com/hashicorp/nomad/plugins/shared/structs"
)

// Command has the fields of all operations.
type Command struct {
	ID int    `json:"id"`
	Op string `json:"op"`

	// launch
	PluginDir string                   `json:"plugin_dir"`
	Driver    string                   `json:"driver"`
	ConfigHCL string                   `json:"config_hcl"` // also: parse
	Args      []string                 `json:"args"`
	Reattach  *pstructs.ReattachConfig `json:"reattach"`

	// a task's life
	Task     Task                `json:"task"`
	Handle   *drivers.TaskHandle `json:"handle"`
	TaskID   string              `json:"task_id"`
	Signal   string              `json:"signal"`
	TimeoutS float64             `json:"timeout_s"`
	Force    bool                `json:"force"`

	// stats, exec
	IntervalS float64  `json:"interval_s"`
	Count     int      `json:"count"`
	Argv      []string `json:"argv"`
	TTY       bool     `json:"tty"`
	Session   string   `json:"session"`
	Data      []byte   `json:"data"`
	Close     bool     `json:"close"`
	Height    int32    `json:"height"`
	Width     int32    `json:"width"`
}

func seconds(value float64) time.Duration {
	return time.Duration(value * float64(time.Second))
}

var operations = map[string]func(*Host, *Command) (Answer, error){
	"launch":      (*Host).launch,
	"plugin":      (*Host).pluginState,
	"kill_plugin": (*Host).killPlugin,
	"schema":      (*Host).schema,
	"parse":       (*Host).parse,
	"start":       (*Host).start,
	"recover":     (*Host).recover,
	"wait":        (*Host).wait,
	"inspect":     (*Host).inspect,
	"signal":      (*Host).signal,
	"stop":        (*Host).stop,
	"destroy":     (*Host).destroy,
	"stats":       (*Host).stats,
	"exec":        (*Host).exec,
	"exec_stream": (*Host).execStream,
	"exec_input":  (*Host).execInput,
	"shutdown":    func(h *Host, _ *Command) (Answer, error) { h.shutdown(); return nil, nil },
}

// killPlugin ends the plugin's process (SIGKILL, or SIGTERM when asked) and answers with the pid
// of the instance that the driver manager has started in its place.
func (h *Host) killPlugin(command *Command) (Answer, error) {
	old := h.state.reattach(h.name)
	if old == nil {
		return nil, errors.New("no plugin runs")
	}
	number := syscall.SIGKILL
	if command.Signal == "SIGTERM" {
		number = syscall.SIGTERM
	}
	if err := syscall.Kill(old.Pid, number); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if now := h.state.reattach(h.name); now != nil && now.Pid != old.Pid {
			return Answer{"old_pid": old.Pid, "pid": now.Pid}, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, fmt.Errorf("no new instance 30 s after the death of pid %d", old.Pid)
}

func (h *Host) schema(*Command) (Answer, error) {
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	spec, err := driver.TaskConfigSchema()
	if err != nil {
		return nil, err
	}
	if _, diagnostics := hclspecutils.Convert(spec); diagnostics.HasErrors() {
		return nil, diagnostics
	}
	return Answer{"schema": spec}, nil
}

func (h *Host) parse(command *Command) (Answer, error) {
	value, err := h.taskConfig(command.ConfigHCL)
	if err != nil {
		return nil, err
	}
	text, err := plainJSON(value)
	return Answer{"config": text}, err
}

// start does what a task runner does between its hooks: directories, log collection, the driver's
// config read against its schema, StartTask (once more after a plugin's death), the handle kept.
func (h *Host) start(command *Command) (Answer, error) {
	task := &command.Task
	if err := task.makeDirectories(); err != nil {
		return nil, err
	}
	value, err := h.taskConfig(task.ConfigHCL)
	if err != nil {
		return nil, err
	}
	collector, err := h.collectLogs(task)
	if err != nil {
		return nil, err
	}
	config := task.driverConfig()
	if err := config.EncodeDriverConfig(value); err != nil {
		return nil, err
	}
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	handle, network, err := driver.StartTask(config)
	answer := Answer{"collector": collector.Reattach, "seconds": time.Since(began).Seconds()}
	if err != nil {
		// Its end takes seconds where nobody ever wrote: not a part of what is measured.
		go h.forget(task.ID)
		answer["recoverable"] = structs.IsRecoverable(err)
		return answer, err
	}
	h.remember(handle)
	answer["handle"], answer["network"] = handle, network
	return answer, nil
}

// recover hands the plugin a task: with a handle from an earlier answer as a new agent would
// (the driver's config is not in it), without one as the same agent does after a plugin's death.
func (h *Host) recover(command *Command) (Answer, error) {
	answer := Answer{}
	handle := command.Handle
	if handle == nil {
		if handle = h.handle(command.TaskID); handle == nil {
			return nil, fmt.Errorf("no handle of task %q", command.TaskID)
		}
	} else {
		collector, err := h.collectLogs(&command.Task)
		if err != nil {
			return nil, err
		}
		answer["collector"] = collector.Reattach
	}
	driver, err := h.dispense()
	if err != nil {
		return answer, err
	}
	if _, err := driver.TaskConfigSchema(); err != nil {
		return answer, err
	}
	if err := driver.RecoverTask(handle); err != nil {
		return answer, err
	}
	h.remember(handle)
	return answer, nil
}

func (h *Host) wait(command *Command) (Answer, error) {
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	results, err := driver.WaitTask(ctx, command.TaskID)
	if err != nil {
		return nil, err
	}
	result, ok := <-results
	if !ok || result == nil {
		return nil, errors.New("the wait ended without a result")
	}
	answer := Answer{
		"exit_code": result.ExitCode, "signal": result.Signal, "oom_killed": result.OOMKilled,
	}
	return answer, result.Err
}

func (h *Host) inspect(command *Command) (Answer, error) {
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	status, err := driver.InspectTask(command.TaskID)
	if err != nil {
		return nil, err
	}
	return Answer{"status": status}, nil
}

func (h *Host) signal(command *Command) (Answer, error) {
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	return nil, driver.SignalTask(command.TaskID, command.Signal)
}

func (h *Host) stop(command *Command) (Answer, error) {
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	err = driver.StopTask(command.TaskID, seconds(command.TimeoutS), command.Signal)
	return Answer{"seconds": time.Since(began).Seconds()}, err
}

func (h *Host) destroy(command *Command) (Answer, error) {
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	if err := driver.DestroyTask(command.TaskID, command.Force); err != nil {
		return nil, err
	}
	h.forget(command.TaskID)
	return nil, nil
}

// stats collects a number of samples, fewer if the stream ends before.
func (h *Host) stats(command *Command) (Answer, error) {
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := driver.TaskStats(ctx, command.TaskID, seconds(command.IntervalS))
	if err != nil {
		return nil, err
	}
	samples := []any{}
	for len(samples) < command.Count {
		sample, open := <-stream
		if !open {
			break
		}
		samples = append(samples, sample)
	}
	return Answer{"samples": samples}, nil
}

func (h *Host) exec(command *Command) (Answer, error) {
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	result, err := driver.ExecTask(command.TaskID, command.Argv, seconds(command.TimeoutS))
	if err != nil {
		return nil, err
	}
	return Answer{
		"stdout": result.Stdout, "stderr": result.Stderr,
		"exit_code": result.ExitResult.ExitCode, "signal": result.ExitResult.Signal,
	}, result.ExitResult.Err
}
