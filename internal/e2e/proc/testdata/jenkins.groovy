// Stands for a Jenkins controller: runs the step withTestbox with steps that do what Jenkins's do.
// Arguments: the file of the step, the script of the body, the boxes.
class Failed extends Exception {
    Failed(String text) { super(text) }
}

def vars = [new HashMap(System.getenv())]
def binding = new Binding()
binding.env = [BUILD_TAG: 'jenkins-team/a b-17']
binding.error = { String text -> throw new Failed(text) }
binding.withEnv = { List more, Closure body ->
    vars.push(vars.last() + more.collectEntries { it.toString().split('=', 2) as List })
    try {
        body()
    } finally {
        vars.pop()
    }
}
binding.timeout = { Map args, Closure body ->
    println "may use it for ${args.time} ${args.unit}"
    body()
}
binding.sh = { arg ->
    Map args = arg instanceof Map ? arg : [script: arg]
    def run = new ProcessBuilder('sh', '-xe', '-c', args.script.toString())
    run.environment().clear()
    run.environment().putAll(vars.last())
    def process = run.redirectError(ProcessBuilder.Redirect.INHERIT).start()
    String out = process.inputStream.text
    if (process.waitFor() != 0) {
        throw new Failed("script returned exit code ${process.exitValue()}")
    }
    if (args.returnStdout) {
        return out
    }
    print out
}
def step = new GroovyShell(binding).parse(new File(args[0]))
try {
    step.call(boxes: args[2..-1] as List, hours: 1) { box ->
        println "the body has ${box}"
        binding.getVariable('sh').call(args[1])
    }
} catch (Failed e) { // what else happens is a fault of the step or of this file
    println "the build failed: ${e.message}"
    System.exit(1)
}
println 'the build succeeded'
