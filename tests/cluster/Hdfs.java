import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.hdfs.MiniDFSCluster;

/**
 * HDFS on loopback until its standard input ends, in FOLDER, and an HTTP server at PORT that reads and writes it with
 * Hadoop's own client: GET of a file is its content, of a folder the paths of all files below, a line each; PUT makes a
 * file; POST says the address of HDFS.
 */
public class Hdfs {
    private static FileSystem files;

    public static void main(String[] arguments) throws Exception {
        Configuration settings = new Configuration();
        // Else a writer who hears before the NameNode does that a block is whole waits for half a second. A reader has to.
        settings.setInt("dfs.namenode.file.close.num-committed-allowed", 1);
        MiniDFSCluster cluster =
                new MiniDFSCluster.Builder(settings, new File(arguments[0])).numDataNodes(2).build();
        cluster.waitActive();
        files = cluster.getFileSystem();
        int port = Integer.parseInt(arguments[1]);
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", Hdfs::answer);
        server.start();
        System.out.println("ready");
        System.in.read();
        Runtime.getRuntime().halt(0);
    }

    private static void answer(HttpExchange exchange) throws IOException {
        ByteArrayOutputStream answer = new ByteArrayOutputStream();
        int status = 200;
        try (InputStream content = exchange.getRequestBody()) {
            Path path = new Path(exchange.getRequestURI().getPath());
            switch (exchange.getRequestMethod()) {
                case "GET" -> read(path, answer);
                case "PUT" -> {
                    try (OutputStream file = files.create(path, true)) {
                        content.transferTo(file);
                    }
                }
                default -> answer.writeBytes(files.getUri().toString().getBytes());
            }
        } catch (FileNotFoundException error) {
            status = 404;
        }
        exchange.sendResponseHeaders(status, answer.size() == 0 ? -1 : answer.size());
        try (OutputStream body = exchange.getResponseBody()) {
            answer.writeTo(body);
        }
    }

    private static void read(Path path, ByteArrayOutputStream answer) throws IOException {
        if (files.getFileStatus(path).isFile()) {
            try (InputStream file = files.open(path)) {
                file.transferTo(answer);
            }
            return;
        }
        for (RemoteIterator<LocatedFileStatus> found = files.listFiles(path, true); found.hasNext(); ) {
            answer.writeBytes((found.next().getPath().toUri().getPath() + "\n").getBytes("UTF-8"));
        }
    }
}
