/*
 * A step for pipelines: withTestbox(boxes: ['web-1', 'web-2'], hours: 2) { box -> ... }
 *
 * It takes the first box that is free, restores it, waits until it is up, calls the closure with
 * the box's address, and gives the box back however that ends. It runs testbox-lease on the agent
 * that the pipeline has. docs/schedulers.md explains how to set it up.
 */
def call(Map args, Closure body) {
    List boxes = args.boxes instanceof List ? args.boxes : [args.boxes]
    int hours = args.hours ?: 4
    // A build may use the step several times, so its tag alone is no name of a run.
    String run = "${env.BUILD_TAG}".replaceAll('[^A-Za-z0-9._:+-]', '-').take(50) + '-' + UUID.randomUUID().toString().take(8)
    String options = "--for ${hours}h --wait ${args.waitMinutes ?: 0}m"
    if (args.image) {
        options += ' --image ' + quoted(args.image)
    }
    for (int i = 0; i < boxes.size(); i++) {
        options += ' ' + quoted(boxes[i])
    }
    withEnv(["TESTBOX_RUN=${run}"]) {
        try {
            // The step sh fails the build if testbox-lease does not end with 0.
            String box = sh(label: 'take and restore a box', returnStdout: true, script: "testbox-lease take ${options}").trim()
            if (!box) {
                error('testbox-lease named no box')
            }
            int left = sh(returnStdout: true, script: 'testbox-lease left').trim() as int
            withEnv(["TESTBOX_BOX=${box}"]) {
                timeout(time: left, unit: 'SECONDS') { // then others may have the box
                    body(box)
                }
            }
        } finally {
            sh(label: 'give the box back', script: 'testbox-lease give')
        }
    }
}

// quoted is one word for a shell. An empty one would be a mistake of the pipeline.
String quoted(Object word) {
    if (!word) {
        error('the name of a box or of a backup is empty')
    }
    return "'" + word.toString().replace("'", "'\\''") + "'"
}
