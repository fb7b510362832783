module containerd-driver/tests/nomad/csi

go 1.23.0

require (
	github.com/container-storage-interface/spec v1.12.0
	golang.org/x/sys v0.31.0
	google.golang.org/grpc v1.59.0
)

require (
	github.com/golang/protobuf v1.5.4 // indirect
	golang.org/x/net v0.38.0 // indirect
	golang.org/x/text v0.23.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20230822172742-b8732ec3820d // indirect
	google.golang.org/protobuf v1.33.0 // indirect
)
